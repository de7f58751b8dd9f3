"""The twin of native.py.  Nothing here may be called with offsets that lie outside of the data."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.datetime cimport PyDateTimeAPI, datetime_new, get_utc, import_datetime
from cpython.list cimport PyList_GET_ITEM
from cpython.ref cimport PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport isfinite
from libc.string cimport memcmp, memcpy

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        object (*tp_new)(PyTypeObject *, object, PyObject *)

    bint PyCFunction_Check(object function) noexcept
    bint PyUnicode_CheckExact(object value) noexcept
    bint PyUnicode_IS_COMPACT_ASCII(object text) noexcept
    const char *PyUnicode_1BYTE_DATA "(const char *)PyUnicode_1BYTE_DATA" (object text) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object text) noexcept
    bint PyDict_CheckExact(object value) noexcept
    bint PyLong_CheckExact(object value) noexcept
    bint PyFloat_CheckExact(object value) noexcept
    double PyFloat_AS_DOUBLE(object value) noexcept
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1

cdef extern from "pythread.h":
    unsigned long _thread_ident "PyThread_get_thread_ident" () noexcept

ctypedef unsigned long (*Ident)() noexcept

cdef enum:
    COMPILED = 1
    # Bytes of a table that is built on the stack.
    ROOM = 1024

# --- numbers ------------------------------------------------------------------------------------

cdef inline unsigned int _get32(const unsigned char *p) noexcept:
    return (<unsigned int>p[0] << 24) | (<unsigned int>p[1] << 16) | (<unsigned int>p[2] << 8) | p[3]

cdef inline unsigned long long _get64(const unsigned char *p) noexcept:
    return (<unsigned long long>_get32(p) << 32) | _get32(p + 4)

cdef inline void _put32(unsigned char *p, unsigned int number) noexcept:
    p[0] = <unsigned char>(number >> 24)
    p[1] = <unsigned char>(number >> 16 & 255)
    p[2] = <unsigned char>(number >> 8 & 255)
    p[3] = <unsigned char>(number & 255)

cdef inline void _put64(unsigned char *p, unsigned long long number) noexcept:
    _put32(p, <unsigned int>(number >> 32))
    _put32(p + 4, <unsigned int>(number & 0xFFFFFFFFULL))

cdef inline const unsigned char *_at(bytes data, Py_ssize_t offset) noexcept:
    return <const unsigned char *>PyBytes_AS_STRING(data) + offset

# --- threads ------------------------------------------------------------------------------------

cdef inline unsigned long _replaced_ident() noexcept:
    import threading
    return threading.get_ident()

cdef inline Ident get_ident():
    import threading
    return _thread_ident if PyCFunction_Check(threading.get_ident) else _replaced_ident

# --- frames -------------------------------------------------------------------------------------

cdef inline object new(object kind):
    """As object.__new__, of an extension type or a subclass of one."""
    return (<PyTypeObject *>kind).tp_new(<PyTypeObject *>kind, (), NULL)

cdef inline bint startswith(bytes data, bytes head, Py_ssize_t offset) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(head)
    return offset + size <= PyBytes_GET_SIZE(data) and memcmp(_at(data, offset), _at(head, 0), size) == 0

cdef inline Py_ssize_t unpack_channel(bytes data, Py_ssize_t offset) noexcept:
    cdef const unsigned char *p = _at(data, offset)
    return p[1] << 8 | p[2]

cdef inline (unsigned int, unsigned int, unsigned int, long long) unpack_header(bytes data, Py_ssize_t offset) noexcept:
    # A body of 2**63 bytes or more is below zero here, and no more welcome.
    cdef const unsigned char *p = _at(data, offset)
    return _get32(p), _get32(p + 4), _get32(p + 8), <long long>_get64(p + 12)

cdef inline (unsigned int, unsigned int) unpack_body(bytes data, Py_ssize_t offset) noexcept:
    cdef const unsigned char *p = _at(data, offset)
    return _get32(p), _get32(p + 4)

cdef inline (unsigned long long, unsigned int) unpack_confirm(bytes data, Py_ssize_t offset) noexcept:
    cdef const unsigned char *p = _at(data, offset)
    return _get64(p), p[8]

cdef inline bytes pack_ack(bytes head, bytes raw):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(head)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, size + 10)
    cdef unsigned char *p = <unsigned char *>PyBytes_AS_STRING(made)
    memcpy(p, _at(head, 0), size)
    memcpy(p + size, _at(raw, 0), 8)
    p[size + 8] = 0
    p[size + 9] = 0xCE
    return made

cdef inline bytes pack_content(bytes head, bytes properties, bytes body_prefix, bytes body):
    cdef Py_ssize_t head_size = PyBytes_GET_SIZE(head)
    cdef Py_ssize_t raw_size = PyBytes_GET_SIZE(properties)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(body)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, head_size + raw_size + size + 25)
    cdef unsigned char *p = <unsigned char *>PyBytes_AS_STRING(made)
    memcpy(p, _at(head, 0), head_size)
    p += head_size
    _put32(p, <unsigned int>raw_size + 12)
    _put32(p + 4, 60 << 16)
    _put64(p + 8, size)
    memcpy(p + 16, _at(properties, 0), raw_size)
    p += 16 + raw_size
    memcpy(p, _at(body_prefix, 0), 4)
    _put32(p + 4, <unsigned int>size)
    memcpy(p + 8, _at(body, 0), size)
    p[size + 8] = 0xCE
    return made

# --- plain properties and tables: what else they may hold is left to fields.py ------------------

cdef inline Py_ssize_t _put_short(unsigned char *room, Py_ssize_t at, object text) noexcept:
    """A short string at ``at``, and where the next begins; -1 leaves it over."""
    cdef Py_ssize_t size
    if not PyUnicode_CheckExact(text) or not PyUnicode_IS_COMPACT_ASCII(text):
        return -1
    size = PyUnicode_GET_LENGTH(text)
    if size > 255 or at + size + 1 > ROOM:
        return -1
    room[at] = <unsigned char>size
    memcpy(room + at + 1, PyUnicode_1BYTE_DATA(text), size)
    return at + size + 1

cdef inline Py_ssize_t _put_table(unsigned char *room, Py_ssize_t start, dict table) except -2:
    """A table of ASCII str, bool, int and float at ``start``; -1 leaves it over."""
    cdef Py_ssize_t at = start + 4, size
    cdef long long number
    cdef int overflow
    cdef double real
    if at > ROOM:
        return -1
    for key, value in table.items():
        at = _put_short(room, at, key)
        if at < 0 or at + 9 > ROOM:
            return -1
        if PyUnicode_CheckExact(value):
            if not PyUnicode_IS_COMPACT_ASCII(value):
                return -1
            size = PyUnicode_GET_LENGTH(value)
            if at + size + 5 > ROOM:
                return -1
            room[at] = c"S"
            _put32(room + at + 1, <unsigned int>size)
            memcpy(room + at + 5, PyUnicode_1BYTE_DATA(value), size)
            at += size + 5
        elif value is True or value is False:
            room[at] = c"t"
            room[at + 1] = value is True
            at += 2
        elif PyLong_CheckExact(value):
            number = PyLong_AsLongLongAndOverflow(value, &overflow)
            if overflow:
                return -1
            if -0x80000000LL <= number <= 0x7FFFFFFFLL:
                room[at] = c"I"
                _put32(room + at + 1, <unsigned int>(number & 0xFFFFFFFFLL))
                at += 5
            else:
                room[at] = c"l"
                _put64(room + at + 1, <unsigned long long>number)
                at += 9
        elif PyFloat_CheckExact(value):
            real = PyFloat_AS_DOUBLE(value)
            if not isfinite(real):
                return -1
            room[at] = c"d"
            memcpy(&number, &real, 8)
            _put64(room + at + 1, <unsigned long long>number)
            at += 9
        else:
            return -1
    _put32(room + start, <unsigned int>(at - start - 4))
    return at

cdef inline bytes encode_plain(dict table):
    cdef unsigned char room[ROOM]
    cdef Py_ssize_t at = _put_table(room, 0, table)
    return None if at < 0 else PyBytes_FromStringAndSize(<char *>room, at)

cdef inline Py_ssize_t _put_octet(unsigned char *room, Py_ssize_t at, object value, long low, long high) noexcept:
    cdef int overflow
    cdef long long number
    if not PyLong_CheckExact(value) or at + 1 > ROOM:
        return -1
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow or number < low or number > high:
        return -1
    room[at] = <unsigned char>number
    return at + 1

cdef inline Py_ssize_t _put_property(
    unsigned char *room, Py_ssize_t at, object text, unsigned int flag, unsigned int *flags
) noexcept:
    """A property that is a string, unless it is None, or something before it was left over."""
    if at < 0 or text is None:
        return at
    flags[0] |= flag
    return _put_short(room, at, text)

cdef inline bytes encode_properties(
    object content_type, object content_encoding, object headers, object delivery_mode,
    object priority, object correlation_id, object reply_to, object expiration, object message_id,
    object timestamp, object type, object user_id, object app_id, object cluster_id,
):
    cdef unsigned char room[ROOM]
    cdef unsigned int flags = 0
    cdef Py_ssize_t at = 2
    cdef int overflow
    cdef long long number
    at = _put_property(room, at, content_type, 0x8000, &flags)
    at = _put_property(room, at, content_encoding, 0x4000, &flags)
    if at > 0 and headers is not None:
        if not PyDict_CheckExact(headers):
            return None
        flags |= 0x2000
        at = _put_table(room, at, headers)
    if at > 0 and delivery_mode is not None:
        flags |= 0x1000
        at = _put_octet(room, at, delivery_mode, 1, 2)
    if at > 0 and priority is not None:
        flags |= 0x0800
        at = _put_octet(room, at, priority, 0, 255)
    at = _put_property(room, at, correlation_id, 0x0400, &flags)
    at = _put_property(room, at, reply_to, 0x0200, &flags)
    at = _put_property(room, at, expiration, 0x0100, &flags)
    at = _put_property(room, at, message_id, 0x0080, &flags)
    if at > 0 and timestamp is not None:
        if not PyLong_CheckExact(timestamp) or at + 8 > ROOM:
            return None
        number = PyLong_AsLongLongAndOverflow(timestamp, &overflow)
        if overflow or number < 0:
            return None
        flags |= 0x0040
        _put64(room + at, <unsigned long long>number)
        at += 8
    at = _put_property(room, at, type, 0x0020, &flags)
    at = _put_property(room, at, user_id, 0x0010, &flags)
    at = _put_property(room, at, app_id, 0x0008, &flags)
    at = _put_property(room, at, cluster_id, 0x0004, &flags)
    if at < 0:
        return None
    room[0] = <unsigned char>(flags >> 8)
    room[1] = <unsigned char>(flags & 255)
    return PyBytes_FromStringAndSize(<char *>room, at)

@cython.cdivision(True)
cdef inline object _utc(unsigned long long seconds):
    """As datetime.fromtimestamp(seconds, timezone.utc), before the year 10000.

    The days since 1970-01-01 become those since 0000-03-01, so that a leap day ends its year;
    400 years have 146,097 days.
    """
    cdef unsigned int second = <unsigned int>(seconds % 86400)
    cdef long long days = <long long>(seconds // 86400) + 719468
    cdef long long era = days // 146097
    cdef unsigned int of_era = <unsigned int>(days - era * 146097)
    cdef unsigned int year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    cdef unsigned int of_year = of_era - (365 * year + year // 4 - year // 100)
    cdef unsigned int from_march = (5 * of_year + 2) // 153
    cdef unsigned int day = of_year - (153 * from_march + 2) // 5 + 1
    cdef unsigned int month = from_march + 3 if from_march < 10 else from_march - 9
    if PyDateTimeAPI is NULL:
        import_datetime()
    return datetime_new(
        <int>(era * 400 + year + (month <= 2)), month, day,
        second // 3600, second // 60 % 60, second % 60, 0, get_utc(), 0,
    )

cdef inline object _name(const unsigned char *p, Py_ssize_t size, list names):
    cdef Py_ssize_t slot = (size * 31 + p[0] * 7 + p[size - 1] + p[size // 2] * 13) & 255 if size else 0
    cdef object known = <object>PyList_GET_ITEM(names, slot)
    if known is not None and PyUnicode_GET_LENGTH(known) == size and memcmp(PyUnicode_1BYTE_DATA(known), p, size) == 0:
        return known
    known = PyUnicode_DecodeUTF8(<const char *>p, size, "surrogateescape")
    if PyUnicode_IS_COMPACT_ASCII(known):
        names[slot] = known
    return known

cdef inline Py_ssize_t fill_plain(dict table, bytes data, Py_ssize_t position, Py_ssize_t end, list names) except -1:
    """Entries that do not end within ``end`` are left over as well."""
    cdef const unsigned char *p = _at(data, 0)
    cdef Py_ssize_t at, size
    cdef unsigned char kind
    cdef unsigned long long number
    cdef double real
    if end > PyBytes_GET_SIZE(data):
        return position
    while position < end:
        size = p[position]
        at = position + size + 2
        if at > end:
            break
        kind = p[at - 1]
        if kind == c"S":
            if end - at < 4 or end - at - 4 < <Py_ssize_t>_get32(p + at):
                break
            size = <Py_ssize_t>_get32(p + at)
            at += 4
            value = PyUnicode_DecodeUTF8(<const char *>p + at, size, "surrogateescape")
            at += size
            size = p[position]
        elif kind == c"I":
            if end - at < 4:
                break
            value = <int>_get32(p + at)
            at += 4
        elif kind == c"l":
            if end - at < 8:
                break
            value = <long long>_get64(p + at)
            at += 8
        elif kind == c"t":
            if end - at < 1:
                break
            value = p[at] != 0
            at += 1
        elif kind == c"d":
            if end - at < 8:
                break
            number = _get64(p + at)
            memcpy(&real, &number, 8)
            value = real
            at += 8
        elif kind == c"T":
            if end - at < 8 or _get64(p + at) > 253402300799ULL:
                break
            value = _utc(_get64(p + at))
            at += 8
        else:
            break
        table[_name(p + position + 1, size, names)] = value
        position = at
    return position
