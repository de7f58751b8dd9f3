import cython

cdef Py_ssize_t BIG_PIECE

cdef class Output:
    cdef public list pieces
    cdef public Py_ssize_t size, threshold
    cdef public bint is_full, paused
    cdef public object on_pressure, on_overrun
    cdef public Py_ssize_t _high_water, _cap, _turn_threshold, _coalesced, _coalesced_size
    cdef public object _ready

    cpdef Py_ssize_t admit(self, Py_ssize_t count) except -1
    cpdef append(self, bytes frame)
    cpdef append_uncapped(self, bytes frame)
    cdef Py_ssize_t _grow(self, Py_ssize_t count) except -1
    cdef _enter_full(self, Py_ssize_t size)
    cdef _enter_backlog(self, Py_ssize_t size)
    cdef _enter_idle(self)
    cdef _coalesce(self)
    @cython.locals(size=Py_ssize_t, pieces=list)
    cpdef list take(self)
    @cython.locals(size=Py_ssize_t, count=Py_ssize_t)
    cdef list _oldest(self)

@cython.locals(size=Py_ssize_t)
cpdef Py_ssize_t size_of(list pieces) except -1
