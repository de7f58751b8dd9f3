from evamqp.core.backpressure cimport Backpressure
from evamqp.core.callbacks cimport CallbackDispatcher
from evamqp.core.clock cimport RequestClock
from evamqp.core.output cimport Output
from evamqp.core.parser cimport FrameParser
from evamqp.core.stats cimport Stats

cdef class Limits:
    cdef public object body_max
    cdef public Py_ssize_t frame_max

cdef class Context:
    cdef public CallbackDispatcher callbacks
    cdef public Output output
    cdef public FrameParser parser
    cdef public RequestClock clock
    cdef public Stats stats
    cdef public Backpressure backpressure
    cdef public Limits limits
    cdef public object channels, message_type, recorder
