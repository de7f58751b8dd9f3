import cython
from evamqp.adapters._flow cimport WriteFlow

cdef int READ, WRITE, LOST
cdef Py_ssize_t RECV_SIZE

@cython.locals(index=Py_ssize_t)
cdef list _behind(pieces, Py_ssize_t sent)

cdef class SocketTransport:
    cdef public object _call_soon, _error, _recv, _selector, _send, _sock, _stream
    cdef public bint _accepting, _is_lost
    cdef public list _unsent
    cdef public Py_ssize_t _room, _unsent_size
    cdef public int _events
    cdef public WriteFlow _flow

    @cython.locals(sent=Py_ssize_t)
    cpdef write(self, data)
    @cython.locals(sent=Py_ssize_t)
    cpdef writelines(self, pieces)
    @cython.locals(accepting=bint)
    cpdef _on_event(self, int events)
    cdef _lose_unwatched(self, bint accepting)
    cdef _fill(self)
    @cython.locals(sent=Py_ssize_t)
    cdef _flush(self)
    cdef _flushed(self)
    cdef _keep(self, data)
