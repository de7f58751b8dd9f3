from evamqp.core.outlet cimport Outlet

cdef class DeliveryTemplate:
    cdef object __weakref__
    cdef public Outlet target
    cdef public object channel, consumer_tag, on_message
    cdef public bint auto_ack, is_stream
    cdef public Py_ssize_t length, tag_at, properties_at
    cdef public bytes head
    cdef public unsigned int header_prefix, body_prefix
