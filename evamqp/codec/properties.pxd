import cython
cimport evamqp.codec.fields as fields
cimport evamqp.codec.native as native

cdef bint _COMPILED
cdef tuple _OCTETS
cdef int _STRING, _TABLE
cdef unsigned int _FOREIGN_FLAGS
cdef dict _before, _present

cdef class Properties:
    cdef public bytes _raw, _sendable
    cdef public object _headers

    @cython.locals(raw=bytes, flags="unsigned int", layout=tuple, found=dict, start=Py_ssize_t, offset=Py_ssize_t, size=Py_ssize_t)
    cpdef dict to_dict(self)
    @cython.locals(raw=bytes, flags="unsigned int", key="unsigned int", offset=Py_ssize_t, size=Py_ssize_t, sizes=tuple)
    cpdef Py_ssize_t _find(self, unsigned int flag, str name) except -1
    @cython.locals(raw=bytes, offset=Py_ssize_t, start=Py_ssize_t, end=Py_ssize_t)
    cdef object _read_string(self, unsigned int flag, str name)
    cdef object _read_octet(self, unsigned int flag, str name)

cdef bytes _encode_octet(value, int low, int high, str what)
cdef bytes _encode_expiration(value)
@cython.locals(properties=Properties)
cpdef Properties wrap(bytes raw)
