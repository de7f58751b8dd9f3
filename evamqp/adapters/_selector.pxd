import cython

cdef int _EPOLLIN, _EPOLLOUT
cdef bint _SEES_CHANGES

cdef class LoopSelector:
    cdef public object _poll, _selector, sleeps_until, wake_up
    cdef public dict _keys
    cdef public Py_ssize_t writers

    @cython.locals(keys=dict, ready=list, event=int, events=int)
    cpdef list select(self, timeout=*)
    cpdef list sleep(self, delay, lock=*)

cdef class Interrupt:
    cdef public bint is_pending
