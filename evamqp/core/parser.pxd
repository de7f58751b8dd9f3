import cython
cimport evamqp.codec.native as native
from evamqp.core.content cimport Content
from evamqp.core.delivery_template cimport DeliveryTemplate
from evamqp.core.message cimport Delivery

cdef bint _COMPILED
cdef unsigned int CLASS_BASIC
cdef int FRAME_END
cdef Py_ssize_t SETTLE_SIZE, HEADER_SIZE

cdef class FrameParser:
    cdef public object _control, _channels, _callbacks, _message_type, held, _body_max
    cdef public dict _templates
    cdef public DeliveryTemplate _last
    cdef public bytes _last_head
    cdef public list _recent
    cdef public Py_ssize_t _max_templates, _need, _position, _fast_body_max
    cdef public object _body_left
    cdef public Content _sink
    cdef public bint _greeted, stopped
    cdef public Py_ssize_t frame_max, header_max
    cdef public long long unfinished, body_bytes, header_bytes, frames, heartbeats, messages

    cpdef receive(self, data, bint wait_whole=*)
    @cython.locals(end=Py_ssize_t, position=Py_ssize_t, need=Py_ssize_t, messages=Py_ssize_t,
        confirms=Py_ssize_t, body_max=Py_ssize_t, header_max=Py_ssize_t, template=DeliveryTemplate,
        length=Py_ssize_t, header=Py_ssize_t, mark="unsigned int", header_size="unsigned int",
        kind="unsigned int", size="long long", body=Py_ssize_t, stop=Py_ssize_t,
        body_size="unsigned int", name=Py_ssize_t, key=Py_ssize_t, message=Delivery,
        tag="unsigned long long", multiple="unsigned int", wire="const unsigned char *")
    cdef _parse(self, bytes data, bint wait_whole)
    cdef Py_ssize_t _read_frame(self, bytes data, Py_ssize_t position, Py_ssize_t end, DeliveryTemplate template, bint wait_whole) except -2
    cdef _forget_last(self)
    @cython.locals(recent=list, number=Py_ssize_t, template=DeliveryTemplate)
    cdef DeliveryTemplate _recall(self, bytes data, Py_ssize_t position)
