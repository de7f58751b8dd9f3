import cython
cimport evamqp.codec.native as native
cimport evamqp.codec.properties as properties_of
from evamqp.core.delivery_template cimport DeliveryTemplate
from evamqp.core.outlet cimport Outlet
from evamqp.core.output cimport Output

cdef bint _COMPILED
cdef native.Ident _get_ident
cdef Py_ssize_t SETTLE_SIZE

cdef class Delivery:
    cdef public DeliveryTemplate _template
    cdef public bytes _raw
    cdef public object body, _properties
    cdef public bint _settled

    @cython.locals(output=Output, size=Py_ssize_t, target=Outlet, frame=bytes)
    cpdef ack(self)
    cdef bint _settle(self, bytes method, bytes flags) except -1
