from evamqp.core.content cimport Content
from evamqp.core.output cimport Output

cdef class Outlet:
    cdef public object channel
    cdef public Content content
    cdef public int number
    cdef public Output output
    cdef public unsigned long owner, publisher
    cdef public long long next_tag, unconfirmed_published
    cdef public bytes settle_head

    cpdef confirm(self, unsigned long long delivery_tag, bint multiple, bint acked)
