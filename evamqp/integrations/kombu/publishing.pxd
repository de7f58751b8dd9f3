cdef class Publication:
    cdef public bint is_settled
    cdef public object error, notices, returned

cdef class OutgoingMessage:
    cdef public object body
    cdef public dict properties

    cpdef tuple encode(self)
    cdef tuple _encode(self, headers)
