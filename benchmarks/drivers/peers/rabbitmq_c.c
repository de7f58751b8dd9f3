/* rabbitmq-c by its own API: one message per call, everything encoded and decoded by the library.
 *
 * It takes the key=value options of the other drivers, and prints one line of JSON as they do.
 * setup.sh builds it; rabbitmq_c.py starts it.
 */
#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

static struct {
    const char *op, *host, *user, *password, *queue;
    long port, n, body, window, repeat, no_ack, prefetch, headers, channels, fresh, exact;
} config = {"publish", "127.0.0.1", "guest", "guest", "bench", 5672, 1000, 100, 1000, 20, 1, 0, 0, 1, 0, 1};

static double began_wall, began_cpu, wall, cpu;

static void fail(const char *what) {
    printf("{\"ok\": false, \"error\": \"%s\"}\n", what);
    exit(0);
}

static void check(int holds, const char *what) {
    if (!holds) fail(what);
}

static double clock_wall(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static double clock_cpu(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void start(void) {
    began_wall = clock_wall();
    began_cpu = clock_cpu();
}

static void stop(void) {
    wall = clock_wall() - began_wall;
    cpu = clock_cpu() - began_cpu;
}

static void answered(amqp_connection_state_t connection, const char *what) {
    check(amqp_get_rpc_reply(connection).reply_type == AMQP_RESPONSE_NORMAL, what);
}

static amqp_connection_state_t connect_to(void) {
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    check(amqp_socket_open(socket, config.host, config.port) == AMQP_STATUS_OK, "connect");
    amqp_rpc_reply_t reply = amqp_login(connection, "/", 2047, 131072, 60, AMQP_SASL_METHOD_PLAIN,
                                        config.user, config.password);
    check(reply.reply_type == AMQP_RESPONSE_NORMAL, "login");
    amqp_channel_open(connection, 1);
    answered(connection, "channel.open");
    return connection;
}

static void close_connection(amqp_connection_state_t connection) {
    amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(connection);
}


static void connects(void) {
    for (long number = 0; number <= config.repeat; number++) {
        if (number == 1) start();
        close_connection(connect_to());
    }
    stop();
}

/* Which publishes wait for their confirm. */
static char *waiting;
static uint64_t waiting_from = 1;
static long unconfirmed;

static void settle(uint64_t tag) {
    check(tag <= (uint64_t)config.n && waiting[tag], "a confirm that nothing waits for");
    waiting[tag] = 0;
    unconfirmed--;
}

static void take_confirm(amqp_connection_state_t connection) {
    amqp_frame_t frame;
    amqp_maybe_release_buffers(connection);
    check(amqp_simple_wait_frame(connection, &frame) == AMQP_STATUS_OK, "wait for a frame");
    check(frame.frame_type == AMQP_FRAME_METHOD && frame.payload.method.id == AMQP_BASIC_ACK_METHOD, "no ack");
    amqp_basic_ack_t *ack = frame.payload.method.decoded;
    if (!ack->multiple) {
        settle(ack->delivery_tag);
        return;
    }
    for (; waiting_from <= ack->delivery_tag; waiting_from++)
        if (waiting[waiting_from]) settle(waiting_from);
}

static amqp_bytes_t text(const char *words) { return amqp_cstring_bytes(words); }

static void publish_one(amqp_connection_state_t connection, long number, amqp_bytes_t queue, amqp_bytes_t body) {
    amqp_basic_properties_t properties;
    amqp_table_entry_t entries[3];
    char id[32];
    properties._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG;
    properties.content_type = text("text/plain");
    properties.delivery_mode = 1;
    if (config.fresh) {
        snprintf(id, sizeof id, "message-%ld", number);
        properties._flags |= AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_HEADERS_FLAG;
        properties.message_id = text(id);
        entries[0] = (amqp_table_entry_t){text("origin"), {.kind = AMQP_FIELD_KIND_UTF8}};
        entries[0].value.value.bytes = text("checkout");
        entries[1] = (amqp_table_entry_t){text("attempt"), {.kind = AMQP_FIELD_KIND_I32}};
        entries[1].value.value.i32 = (int32_t)number;
        entries[2] = (amqp_table_entry_t){text("sampled"), {.kind = AMQP_FIELD_KIND_BOOLEAN}};
        entries[2].value.value.boolean = 1;
        properties.headers = (amqp_table_t){3, entries};
    }
    int status = amqp_basic_publish(connection, 1, amqp_empty_bytes, queue, 0, 0, &properties, body);
    check(status == AMQP_STATUS_OK, "publish");
}

static amqp_bytes_t payload(void) {
    uint8_t *bytes = malloc(config.body + 1);
    for (long at = 0; at < config.body; at++) bytes[at] = (uint8_t)at;
    return (amqp_bytes_t){config.body, bytes};
}

static void publishes(amqp_connection_state_t connection, long window) {
    amqp_bytes_t queue = text(config.queue), body = payload();
    amqp_queue_declare(connection, 1, queue, 0, 1, 0, 0, amqp_empty_table);
    answered(connection, "queue.declare");
    if (window) {
        waiting = calloc(config.n + 2, 1);
        amqp_confirm_select(connection, 1);
        answered(connection, "confirm.select");
    }
    start();
    for (long number = 1; number <= config.n; number++) {
        while (window && unconfirmed >= window) take_confirm(connection);
        if (window) {
            waiting[number] = 1;
            unconfirmed++;
        }
        publish_one(connection, number, queue, body);
    }
    while (unconfirmed) take_confirm(connection);
    if (window) {
        stop();
        return;
    }
    amqp_queue_declare_ok_t *declared = amqp_queue_declare(connection, 1, queue, 1, 0, 0, 0, amqp_empty_table);
    stop();
    check(declared && (!config.exact || declared->message_count == (uint32_t)config.n), "messages in the broker");
}

/* The eight headers of _measure.HEADERS: each is looked up by its name, and compared. */
static int read_headers(const amqp_table_t *headers) {
    static const char *names[] = {"request-id", "origin", "region", "attempt", "sequence", "sampled", "score", "sent"};
    static const char *texts[] = {"8a6e0804-2bd0-4672-b79d-d97027f9071a", "checkout", "eu-central"};
    int right = 0;
    for (int wanted = 0; wanted < 8; wanted++) {
        size_t size = strlen(names[wanted]);
        for (int at = 0; at < headers->num_entries; at++) {
            const amqp_table_entry_t *entry = &headers->entries[at];
            if (entry->key.len != size || memcmp(entry->key.bytes, names[wanted], size)) continue;
            const amqp_field_value_t *value = &entry->value;
            if (wanted < 3)
                right += value->value.bytes.len == strlen(texts[wanted]) &&
                         !memcmp(value->value.bytes.bytes, texts[wanted], value->value.bytes.len);
            else if (wanted == 3)
                right += value->value.i32 == 2;
            else if (wanted == 4)
                right += value->value.i64 == 9000000001LL;
            else if (wanted == 5)
                right += value->value.boolean;
            else if (wanted == 6)
                right += value->value.f64 == 2.0;
            else
                right += value->value.u64 == 1709208000ULL; /* 2024-02-29 12:00 UTC */
            break;
        }
    }
    return right;
}

static void consumes(amqp_connection_state_t connection) {
    amqp_bytes_t queue = text(config.queue);
    amqp_queue_declare(connection, 1, queue, 0, 1, 0, 0, amqp_empty_table);
    answered(connection, "queue.declare");
    for (long number = 1; number <= config.channels; number++) {
        if (number > 1) {
            amqp_channel_open(connection, number);
            answered(connection, "channel.open");
        }
        if (config.prefetch) {
            amqp_basic_qos(connection, number, 0, config.prefetch, 0);
            answered(connection, "basic.qos");
        }
        if (number == config.channels) start(); /* with the last one deliveries begin */
        amqp_basic_consume(connection, number, queue, amqp_empty_bytes, 0, config.no_ack, 0, amqp_empty_table);
        answered(connection, "basic.consume");
    }
    for (long got = 0; got < config.n; got++) {
        amqp_envelope_t envelope;
        amqp_maybe_release_buffers(connection);
        amqp_rpc_reply_t reply = amqp_consume_message(connection, &envelope, NULL, 0);
        check(reply.reply_type == AMQP_RESPONSE_NORMAL, "consume");
        check(envelope.message.body.len == (size_t)config.body, "size of a body");
        if (config.headers) check(read_headers(&envelope.message.properties.headers) == 8, "headers");
        if (!config.no_ack)
            check(amqp_basic_ack(connection, envelope.channel, envelope.delivery_tag, 0) == AMQP_STATUS_OK, "ack");
        amqp_destroy_envelope(&envelope);
    }
    if (!config.no_ack) { /* behind the acks, so that the broker has seen them all */
        amqp_queue_declare(connection, 1, queue, 1, 0, 0, 0, amqp_empty_table);
        answered(connection, "queue.declare");
    }
    stop();
}

static void read_options(int count, char **arguments) {
    struct { const char *name; const char **text; long *number; } known[] = {
        {"op", &config.op, 0}, {"host", &config.host, 0}, {"user", &config.user, 0},
        {"password", &config.password, 0}, {"queue", &config.queue, 0}, {"port", 0, &config.port},
        {"n", 0, &config.n}, {"body", 0, &config.body}, {"window", 0, &config.window},
        {"repeat", 0, &config.repeat}, {"no_ack", 0, &config.no_ack}, {"prefetch", 0, &config.prefetch},
        {"headers", 0, &config.headers}, {"channels", 0, &config.channels}, {"fresh", 0, &config.fresh},
        {"exact", 0, &config.exact},
    };
    for (int at = 1; at < count; at++) {
        char *value = strchr(arguments[at], '=');
        int found = 0;
        check(value != NULL, "an option without a value");
        *value++ = 0;
        for (size_t each = 0; each < sizeof known / sizeof *known; each++) {
            if (strcmp(known[each].name, arguments[at])) continue;
            found = 1;
            if (known[each].text) *known[each].text = value;
            else *known[each].number = atol(value);
        }
        check(found, "an unknown option");
    }
}

int main(int count, char **arguments) {
    read_options(count, arguments);
    if (!strcmp(config.op, "connect")) {
        connects();
    } else {
        amqp_connection_state_t connection = connect_to();
        if (!strcmp(config.op, "publish")) publishes(connection, 0);
        else if (!strcmp(config.op, "confirm")) publishes(connection, config.window);
        else if (!strcmp(config.op, "latency")) publishes(connection, 1);
        else if (!strcmp(config.op, "consume")) consumes(connection);
        else fail("an unknown op");
        close_connection(connection);
    }
    printf("{\"ok\": true, \"wall\": %.9f, \"cpu\": %.9f}\n", wall, cpu);
    return 0;
}
