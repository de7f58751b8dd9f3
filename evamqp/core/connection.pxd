import cython
cimport evamqp.codec.native as native
from evamqp.core.callbacks cimport CallbackDispatcher
from evamqp.core.clock cimport RequestClock
from evamqp.core.context cimport Context
from evamqp.core.deadlines cimport Deadlines
from evamqp.core.heartbeat cimport Heartbeat
from evamqp.core.output cimport Output
from evamqp.core.parser cimport FrameParser
from evamqp.core.unclosed cimport Closable

cdef native.Ident _get_ident
cdef object _CLOSED

cdef class Connection(Closable):
    cdef public object state, reason, transport_action, parameters, server_properties, user
    cdef public object channel_max, frame_max, heartbeat
    cdef public bint reading, _inbox_woken
    cdef public object _closing, _control, _inbox, _runtime, _stalls
    cdef public CallbackDispatcher _callbacks
    cdef public Context context
    cdef public Deadlines _deadlines
    cdef public Output _output

    @cython.locals(callbacks=CallbackDispatcher, heartbeat=Heartbeat)
    cpdef receive_data(self, data)
    @cython.locals(output=Output, size=Py_ssize_t, heartbeat=Heartbeat)
    cpdef list pieces_to_send(self)
    @cython.locals(callbacks=CallbackDispatcher, context=Context, parser=FrameParser, clock=RequestClock)
    cpdef next_deadline(self)
