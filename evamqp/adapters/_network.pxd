cdef class SelectorNetwork:
    pass
