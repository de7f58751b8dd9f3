from evamqp.core.delivery_template cimport DeliveryTemplate

cdef class Content:
    cdef public str name
    cdef public tuple arguments
    cdef public bytes payload, properties
    cdef public object finish, size
    cdef public DeliveryTemplate template
    cdef public long long pinned_bytes, _received
    cdef public list _pieces

    cpdef append(self, piece)
