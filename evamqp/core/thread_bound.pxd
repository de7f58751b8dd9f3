cdef class ThreadBound:
    cdef object __weakref__
    cdef public unsigned long owner
    cdef public bint is_forked, is_loop_closed
