import cython
cimport evamqp.codec.native as native

cdef bint _COMPILED
cdef int _LONGSTR, _BYTES, _TABLE, _ARRAY, _INT32, _INT64, _DOUBLE, _BOOL, _TIMESTAMP, _DECIMAL, _VOID
cdef tuple _OCTETS, _STRING_HEADS
cdef list _known_names

@cython.locals(raw=bytes)
cpdef bytes encode_shortstr(value, str what)
@cython.locals(start=Py_ssize_t, end=Py_ssize_t)
cpdef tuple decode_table(bytes data, Py_ssize_t offset=*)
@cython.locals(start=Py_ssize_t, kind=int, size=Py_ssize_t, known=dict)
cdef tuple _fill_table(dict table, bytes data, Py_ssize_t position, Py_ssize_t end)
@cython.locals(kind=int)
cdef tuple _fill_array(list array, bytes data, Py_ssize_t position, Py_ssize_t end)
cpdef bytes encode_table(table, str what=*)
@cython.locals(known=dict, parts=list, raw=bytes, size=Py_ssize_t)
cdef bytes _encode_entries(table, int depth)
cdef bytes _encode_key(key)
