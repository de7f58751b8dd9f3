cdef class Confirms:
    cdef public long long _first
    cdef readonly object _overtaken

    cpdef object settle(self, unsigned long long tag, bint multiple, long long next_tag)
    cdef object _settle_up_to(self, long long last)

cdef class LateConfirms(Confirms):
    cdef long long _before

    cpdef object settle(self, unsigned long long tag, bint multiple, long long next_tag)
