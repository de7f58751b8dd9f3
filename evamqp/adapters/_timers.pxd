cdef class Call:
    cdef public object callback

    cpdef cancel(self)

cdef class Timer(Call):
    cdef public Timers timers

    cpdef cancel(self)

cdef class Timers:
    cdef public double due
    cdef public list _heap
    cdef public object _order
    cdef public Py_ssize_t _cancelled
