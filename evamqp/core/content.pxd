from evamqp.core.delivery_template cimport DeliveryTemplate

cdef class Content:
    cdef public str name
    cdef public tuple arguments
    cdef public bytes payload, properties, _whole
    cdef public object finish, size, _collected
    cdef public DeliveryTemplate template
    cdef public long long _received

    cpdef append(self, bytes data, Py_ssize_t start, Py_ssize_t stop)
