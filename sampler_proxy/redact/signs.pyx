"""Finds the signs of secrets: all of them in one pass, value by value."""
import re

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memchr, memset

from sampler_proxy.otlp.protobuf cimport cbytes
from sampler_proxy.redact.detectors import types

cdef enum:
    MAX_GROUPS = 64
    MAX_CLASSES = 128
    MAX_RUNS = 16  # classes that are skipped through
    CELLS = 1 << 18  # by three bytes, of each what CODES has for it
    MAX_GAP = 48  # bytes between two digits: three separators, each at most `&amp;#x00002011;`
    ENTITY = 15  # bytes behind an ampersand that may belong to it
    ESCAPE = 2  # the same behind a percent sign

cdef enum RowKind:
    OF_TEXT
    OF_DIGITS
    OF_END  # of a value

cdef struct Row:
    RowKind kind
    uint64_t group  # its bit
    const uint8_t* text
    uint32_t size
    bint any_case
    uint8_t before  # classes by number; 0: any byte
    uint8_t then
    uint32_t times
    uint8_t through
    uint8_t run  # the number of `through` among the classes that are skipped through
    uint8_t until

cdef struct Node:
    uint16_t row
    uint16_t next  # in the same cell; 0: none

cdef struct Look:
    uint64_t groups  # of the value so far
    Py_ssize_t digits_end  # up to where digits have been counted
    Py_ssize_t run_starts[MAX_RUNS]  # the last run of bytes of a class, so that none is walked twice
    Py_ssize_t run_ends[MAX_RUNS]

_CODED = b"abcdefghijklmnopqrstuvwxyz0123456789\n !\"$%&'()*+-./:;=@[\\]_`{"
cdef uint8_t FOLD[256]
cdef uint8_t CODES[256]  # six bits: letters of either case, digits, the signs that texts begin with; all others share 0
cdef int _byte
for _byte in range(256):
    FOLD[_byte] = _byte + 32 if 65 <= _byte <= 90 else _byte
    CODES[_byte] = 62 if _byte >= 128 else 1 + _CODED.find(FOLD[_byte])


cdef inline bint is_digit(uint8_t byte) noexcept nogil:
    return 48 <= byte <= 57


cdef class Signs:
    cdef Row* rows
    cdef uint32_t row_count
    cdef Node* nodes
    cdef uint32_t node_count
    cdef uint32_t node_room
    cdef uint64_t begins[CELLS >> 6]  # a bit for each cell: whether it has nodes
    cdef uint16_t cells[CELLS]  # the first node of each
    cdef uint8_t classes[MAX_CLASSES][256]
    cdef dict class_numbers
    cdef list runs
    cdef list texts  # which rows point into
    cdef int counting  # how many groups ask for digits
    cdef uint64_t counters[MAX_GROUPS]  # their bits
    cdef uint32_t least[MAX_GROUPS]  # how many digits they ask for, and how these are grouped
    cdef uint32_t grouped[MAX_GROUPS][3]

    def __cinit__(self, groups):
        if len(groups) > MAX_GROUPS:
            raise ValueError(f"more than {MAX_GROUPS} groups of signs")
        self.class_numbers = {"": 0}
        self.texts = []
        self.runs = []
        self.rows = <Row*>calloc(sum(map(len, groups)) + 2, sizeof(Row))
        if self.rows == NULL:
            raise MemoryError
        self.node_count = 1
        self.add_end()
        for group, signs in enumerate(groups):
            for sign in signs:
                if isinstance(sign, types.Sign):
                    self.add_text(group, sign)
                else:
                    self.counters[self.counting] = <uint64_t>1 << group
                    self.least[self.counting] = sign.least
                    for i in range(3):
                        self.grouped[self.counting][i] = sign.groups[i]
                    self.counting += 1
        if self.counting:
            self.rows[self.row_count].kind = OF_DIGITS
            self.row_count += 1
            self.enter(self.row_count - 1, 3 * [b"0123456789"])

    def __dealloc__(self):
        free(self.rows)
        free(self.nodes)

    cdef int add_end(self) except -1:
        self.rows[0].kind = OF_END
        self.row_count = 1
        self.enter(0, [types.SEPARATOR[at:at + 1] for at in range(3)])
        return 0

    cdef int add_text(self, int group, object sign) except -1:
        """Add a row for a sign, and enter it wherever its first three bytes may lead."""
        cdef Row* row = &self.rows[self.row_count]
        cdef bytes text = sign.text.encode("latin-1")
        if not text:
            raise ValueError("a sign needs a text")
        if sign.any_case:
            text = text.lower()
        self.texts.append(text)
        row.kind = OF_TEXT
        row.group = <uint64_t>1 << group
        row.text = <const uint8_t*>PyBytes_AS_STRING(text)
        row.size = <uint32_t>len(text)
        row.any_case = sign.any_case
        row.before = self.class_number(sign.before)
        row.then = self.class_number(sign.then)
        row.times = sign.times if sign.then else 0
        row.through = self.class_number(sign.through)
        if row.through and sign.through not in self.runs:
            if len(self.runs) == MAX_RUNS:
                raise ValueError("signs skip through too many classes of bytes")
            self.runs.append(sign.through)
        row.run = self.runs.index(sign.through) if row.through else 0
        row.until = self.class_number(sign.until)
        places = [text[at:at + 1] for at in range(min(3, len(text)))]
        places += [self.members(row.then) for _ in range(min(3 - len(places), row.times))]
        if len(places) < 3 and row.until and not row.through:
            places.append(self.members(row.until))
        self.enter(self.row_count, (places + 2 * [bytes(range(256))])[:3])
        self.row_count += 1
        return 0

    cdef int class_number(self, str written) except -1:
        """Return the number of a class of bytes, which is made if there is none yet."""
        cdef int byte
        number = self.class_numbers.get(written)
        if number is None:
            number = len(self.class_numbers)
            if number == MAX_CLASSES:
                raise ValueError("signs have too many classes of bytes")
            matches = re.compile(f"[{written}]".encode("latin-1")).match
            for byte in range(256):
                self.classes[<int>number][byte] = matches(bytes((byte,))) is not None
            self.class_numbers[written] = number
        return number

    cdef bytes members(self, int number):
        return bytes([byte for byte in range(256) if self.classes[number][byte]])

    cdef int enter(self, uint32_t row, list places) except -1:
        """Enter a row into the cells of all that may stand in its first three places."""
        cdef uint32_t cell
        cdef Node* node
        first, second, third = ({CODES[<int>byte] for byte in place} for place in places)
        for one in first:
            for two in second:
                for three in third:
                    cell = <uint32_t>one << 12 | <uint32_t>two << 6 | <uint32_t>three
                    node = self.new_node()
                    node.row = <uint16_t>row
                    node.next = self.cells[cell]
                    self.cells[cell] = <uint16_t>(node - self.nodes)
                    self.begins[cell >> 6] |= <uint64_t>1 << (cell & 63)
        return 0

    cdef Node* new_node(self) except NULL:
        cdef void* grown
        if self.node_count >= self.node_room:
            if self.node_room >= 1 << 16:
                raise ValueError("the signs are too many together")
            grown = realloc(self.nodes, (2 * self.node_room + 1024) * sizeof(Node))
            if grown == NULL:
                raise MemoryError
            self.nodes = <Node*>grown
            self.node_room = 2 * self.node_room + 1024
        self.node_count += 1
        return &self.nodes[self.node_count - 1]

    def values(self, bytes joined not None):
        cdef cbytes p = <cbytes>PyBytes_AS_STRING(joined)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(joined)
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t start = 0
        cdef uint32_t cell
        cdef uint16_t place
        cdef Row* row
        cdef Look look
        cdef list found = []
        memset(&look, 0, sizeof(Look))
        while True:
            at = self.next_place(p, at, size - 2, &cell)
            if at >= size - 2:
                return found
            place = self.cells[cell]
            while place:
                row = &self.rows[self.nodes[place].row]
                place = self.nodes[place].next
                if row.kind == OF_TEXT:
                    if not look.groups & row.group and self.stands(row, p, at, size, &look):
                        look.groups |= row.group
                elif row.kind == OF_DIGITS:
                    self.count_digits(p, at, size, &look)
                elif p[at] == 10 and p[at + 1] == 0 and p[at + 2] == 10:
                    if look.groups:
                        found.append((start, at, [group for group in range(MAX_GROUPS) if look.groups >> group & 1]))
                    look.groups = 0
                    start = at + 3
            at += 1

    def places(self, bytes text not None):
        cdef cbytes p = <cbytes>PyBytes_AS_STRING(text)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(text)
        cdef Py_ssize_t at = 0
        cdef uint32_t cell
        cdef uint16_t place
        cdef Row* row
        cdef Look look
        cdef list found = []
        memset(&look, 0, sizeof(Look))
        while True:
            at = self.next_place(p, at, size - 2, &cell)
            if at >= size - 2:
                return found
            place = self.cells[cell]
            while place:
                row = &self.rows[self.nodes[place].row]
                place = self.nodes[place].next
                if row.kind == OF_TEXT and self.stands(row, p, at, size, &look):
                    found.append(at)
                    break
            at += 1

    cdef Py_ssize_t next_place(self, cbytes p, Py_ssize_t at, Py_ssize_t end, uint32_t* cell) noexcept nogil:
        """Return the first position from `at` on where a sign may begin, or `end`; and its cell."""
        cdef const uint64_t* begins = self.begins
        cdef size_t codes
        if at >= end:
            return end
        codes = <size_t>CODES[p[at]] << 6 | CODES[p[at + 1]]
        while at < end:
            codes = (codes << 6 | CODES[p[at + 2]]) & (CELLS - 1)
            if begins[codes >> 6] >> (codes & 63) & 1:
                cell[0] = <uint32_t>codes
                return at
            at += 1
        return end

    cdef bint stands(self, const Row* row, cbytes p, Py_ssize_t at, Py_ssize_t size, Look* look) noexcept nogil:
        """Tell whether a sign of text begins at a position."""
        cdef Py_ssize_t i, end = at + row.size
        if end >= size:
            return False
        for i in range(<Py_ssize_t>row.size):
            if (FOLD[p[at + i]] if row.any_case else p[at + i]) != row.text[i]:
                return False
        if row.before and not self.classes[row.before][p[at - 1] if at else 10]:
            return False
        for _ in range(row.times):
            if end >= size or not self.classes[row.then][p[end]]:
                return False
            end += 1
        if row.through:
            if look.run_starts[row.run] <= end < look.run_ends[row.run]:
                end = look.run_ends[row.run]
            else:
                look.run_starts[row.run] = end
                while end < size and self.classes[row.through][p[end]]:
                    end += 1
                look.run_ends[row.run] = end
        if not row.until:
            return True
        return end + 1 < size and self.classes[row.until][0 if p[end] == 10 and p[end + 1] == 0 else p[end]]

    cdef void count_digits(self, cbytes p, Py_ssize_t at, Py_ssize_t size, Look* look) noexcept nogil:
        """Count the digits from a position on, with what may stand between those of a number, and add the groups of
        signs for which they are enough."""
        cdef uint32_t count = 0
        cdef uint32_t first = 0  # digits of the last three groups
        cdef uint32_t second = 0
        cdef uint32_t third = 0
        cdef uint64_t fitting = 0
        cdef Py_ssize_t start
        cdef int within  # bytes of a code that may follow
        cdef bint coded = False
        cdef uint8_t byte
        cdef int i
        if at < look.digits_end or not is_digit(p[at]):
            return
        within = 0
        while True:
            start = at
            while at < size and is_digit(p[at]):
                at += 1
            first, second, third = second, third, <uint32_t>(at - start)
            count += third
            if first:
                for i in range(self.counting):
                    if first >= self.grouped[i][0] and second == self.grouped[i][1] and third >= self.grouped[i][2]:
                        fitting |= self.counters[i]
            within = max(0, within - <int>third)
            start = at
            while at < size and at - start <= MAX_GAP:
                byte = p[at]
                if byte == b"&" or byte == b"%":
                    coded = True
                    within = (ENTITY if byte == b"&" else ESCAPE) + 1
                elif is_digit(byte):
                    break
                elif within and (97 <= byte | 32 <= 122 or byte == b"#" or byte == b";"):
                    pass
                elif byte < 0x80 and memchr(b" \t+-./_", byte, 7) == NULL:
                    break
                within -= within > 0
                at += 1
            if at >= size or not is_digit(p[at]):
                break
        look.digits_end = at
        for i in range(self.counting):
            if count >= self.least[i] and (coded or not self.grouped[i][2] or fitting & self.counters[i]):
                look.groups |= self.counters[i]
