import cython
cimport evamqp.codec.native as native
from evamqp.codec.properties cimport Properties
from evamqp.core.context cimport Limits
from evamqp.core.outlet cimport Outlet
from evamqp.core.output cimport Output, size_of

cdef bint _COMPILED
cdef native.Ident _get_ident

cdef class Publishing:
    cdef public Limits _limits
    cdef public int number
    cdef public Outlet _outlet
    cdef public dict _prefixes, _last_prefixes, _publish_ends
    cdef public bytes _last_head, _body_prefix
    cdef public Py_ssize_t _joined_body, _prefix_count
    cdef public long long _mandatory_ended
    cdef public object _last_exchange, _last_key, _last_mandatory

    @cython.locals(outlet=Outlet, given=Properties, raw=bytes, header_size=Py_ssize_t, head=bytes,
        size=Py_ssize_t, output=Output, frames=bytes, total=Py_ssize_t, tag="long long")
    cpdef object basic_publish(self, object exchange, object routing_key, object body, object properties=*, object mandatory=*)
    cdef bytes _look_at(self, object properties)
    @cython.locals(output=Output, size=Py_ssize_t, waiting=Py_ssize_t, frame_max=Py_ssize_t,
        front=bytes, pieces=list)
    cdef _publish_pieces(self, bytes head, bytes raw, bytes body)
    @cython.locals(head=bytes, key=bytes, prefix=bytes)
    cdef bytes _make_head(self, object exchange, object routing_key, object mandatory)
    cdef _turn_to(self, object exchange)
    cdef _turn_mandatory(self, object mandatory)
    cdef bytes _make_prefix(self, object exchange, Py_ssize_t size)
