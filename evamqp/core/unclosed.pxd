cdef class Closable:
    cdef object __weakref__
    cdef public bint _must_close
