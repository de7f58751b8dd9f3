cdef class Heartbeat:
    cdef public double period
    cdef public bint received, sent
    cdef public int _missed
