cdef class Publication:
    cdef public object batch, body, error, exchange, number, routing_key
    cdef public bint is_settled
