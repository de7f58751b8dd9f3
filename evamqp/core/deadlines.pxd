cdef class Deadlines:
    cdef public dict _by_name
    cdef public object first
