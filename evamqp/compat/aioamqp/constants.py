"""The constants of aioamqp that programs read; the numbers of methods stayed behind."""

MAX_CHANNELS = 65535
PROTOCOL_DEFAULT_PORT = 5672
PROTOCOL_DEFAULT_TIMEOUT = 60
MESSAGE_PROPERTIES = (
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "message_type",
    "user_id",
    "app_id",
    "cluster_id",
)
