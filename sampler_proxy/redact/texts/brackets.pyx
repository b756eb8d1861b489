"""Reads members of objects by the brackets and quotes in a text, be it JSON or nearly so.

A token at a time: a sign, a string, a word. Members are noted as records, which become objects at the end; what is
open, an item of a bracket whose end has not been seen, is on a stack. Nothing that stands where it should not stops the
reading: at worst a member gets a wrong key, and what is behind the next bracket or comma is right again.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp

from sampler_proxy.otlp.protobuf cimport cbytes

from sampler_proxy.redact.texts.members import Member, unescaped

cdef enum Token:
    NOTHING  # the text is at its end
    SIGN
    STRING
    WORD
    UNCLOSED  # a quote that nothing closes

cdef enum Kind:
    # Of a record.
    TEXT  # a string
    OPEN_TEXT  # a string that is not closed
    BARE  # a word
    HOLDER  # a bracket, or a value of several tokens

cdef enum:
    NONE = -1
    UNNAMED = -2  # a value that is no member
    LONGEST_TYPE = 24

cdef struct Piece:
    # A token of an item.
    Token token  # NOTHING: there is none
    Py_ssize_t start, end

cdef struct Record:
    # A member.
    Py_ssize_t start, end, around
    Py_ssize_t key  # among the keys
    Kind kind

cdef struct Open:
    # A bracket that is open, and the item in it that is being read: a member, or an element.
    Py_ssize_t start
    Py_ssize_t inherited  # key of elements, which have none of their own
    Py_ssize_t record  # the container's; NONE: it is none
    Py_ssize_t key  # of the item; NONE: it has none yet
    Py_ssize_t value  # record of the item's value; NONE: none has begun; UNNAMED
    Py_ssize_t end  # of a value that is more than one token; NONE: it is one
    Py_ssize_t before  # end of that value without its last token
    Piece first  # token of the item, which may be its key
    Piece last  # token of a value that has others before it: the next key, where a comma is missing
    uint8_t bracket
    bint keyword  # what begins the item is a key: `:key "value"`

# Types whose argument is a secret: pydantic's, and those of crates and libraries named alike.
cdef tuple TYPES = (
    b"Secret", b"SecretStr", b"SecretString", b"SecretBytes", b"SecretValue", b"Secret::new", b"SecretString::new",
    b"Sensitive", b"SensitiveString", b"Password", b"ApiKey",
)


cdef inline bint is_word(uint8_t c) noexcept nogil:
    """Tell whether a byte is a letter, a digit or an underscore."""
    return 48 <= c <= 57 or 97 <= (c | 32) <= 122 or c == 95


cdef inline bint ends_word(uint8_t c) noexcept nogil:
    """Tell whether a byte is white space, or means something outside of strings."""
    return is_space(c) or c in b"{}[](),;:\"'`="


cdef class _Reader:
    cdef cbytes text
    cdef Py_ssize_t size, at
    cdef bint[3] unclosed  # of each quote: nothing closes one here, nor further on
    cdef Piece token  # the one that has been read
    cdef list keys
    cdef Record* records
    cdef Py_ssize_t count, room
    cdef Open* stack
    cdef Py_ssize_t depth, stack_room
    cdef Py_ssize_t[3] brackets  # that are open, of each form

    def __cinit__(self, bytes text not None):
        self.text = <cbytes>PyBytes_AS_STRING(text)
        self.size = PyBytes_GET_SIZE(text)
        self.keys = [""]

    def __dealloc__(self):
        free(self.records)
        free(self.stack)

    # Tokens.

    cdef void next(self) noexcept:
        """Read a token: white space, comments, and letters that belong to the quote behind them, are skipped."""
        cdef cbytes p = self.text
        cdef Py_ssize_t at = self.at
        cdef Py_ssize_t size = self.size
        cdef uint8_t c
        while True:
            while at < size and is_space(p[at]):
                at += 1
            if at >= size:
                self.found(NOTHING, size, size)
                return
            c = p[at]
            if c in b"{}[](),;":
                self.found(SIGN, at, at + 1)
                return
            if c == b"=":
                self.found(SIGN, at, at + (2 if at + 1 < size and p[at + 1] == b">" else 1))
                return
            if c == b":" and not self.begins(at, b"://"):
                self.found(SIGN, at, at + 1)
                return
            if c in b"\"'`":
                self.string(at)
                return
            if self.begins(at, b"//"):
                while at < size and p[at] != b"\n":
                    at += 1
            elif self.begins(at, b"/*"):
                at += 2
                while at < size and not self.begins(at, b"*/"):
                    at += 1
                at = min(at + 2, size)
            elif c in b"bBuUrRfFnN" and self.is_quote(at + 1):
                at += 1
            elif c in b"bBuUrRfFnN" and at + 1 < size and p[at + 1] in b"bBuUrRfFnN" and self.is_quote(at + 2):
                at += 2
            else:
                self.word(at)
                return

    cdef inline void found(self, Token token, Py_ssize_t start, Py_ssize_t end) noexcept:
        self.token.token = token
        self.token.start = start
        self.token.end = self.at = end

    cdef inline bint begins(self, Py_ssize_t at, const char* word) noexcept:
        """Tell whether a word of two or three bytes stands at a position."""
        cdef Py_ssize_t length = 3 if word[2] else 2
        return self.size - at >= length and memcmp(self.text + at, word, length) == 0

    cdef inline bint is_quote(self, Py_ssize_t at) noexcept:
        return at < self.size and (self.text[at] == b"\"" or self.text[at] == b"'")

    cdef void string(self, Py_ssize_t start) noexcept:
        """Read a string. A quote before a letter or digit is part of it: `"a 5"er, or "so""`."""
        cdef cbytes p = self.text
        cdef uint8_t quote = p[start]
        cdef int which = 0 if quote == b"\"" else 1 if quote == b"'" else 2
        cdef Py_ssize_t at = start + 1
        if not self.unclosed[which]:
            while at < self.size:
                if p[at] == b"\\":
                    at += 1
                elif p[at] == quote and not (at + 1 < self.size and (is_word(p[at + 1]) or p[at + 1] >= 0x80)):
                    self.found(STRING, start, at + 1)
                    return
                at += 1
            # Those behind this one were seen as parts of it, and would see the same in what is behind them.
            self.unclosed[which] = True
        self.found(UNCLOSED, start, start + 1)

    cdef void word(self, Py_ssize_t start) noexcept:
        """Read a word. A sign of equality in it separates it only where it may be a key."""
        cdef cbytes p = self.text
        cdef Open* top = &self.stack[self.depth - 1]
        cdef bint is_key = top.key == NONE and top.value == NONE and top.first.token == NOTHING
        cdef Py_ssize_t size = self.size
        cdef Py_ssize_t at = start
        while at < size:
            if not ends_word(p[at]):
                at += 1
            elif p[at] == b":" and self.begins(at, b"://"):
                at += 3
            elif p[at] == b"'" and at > start and is_word(p[at - 1]) and at + 1 < size and is_word(p[at + 1]):
                at += 2  # an apostrophe
            elif p[at] == b"=" and not is_key and at > start and at + 1 < size and (
                p[at + 1] not in b">\"'`" and not is_space(p[at + 1])
            ):
                at += 1
            else:
                break
        self.found(WORD, start, max(at, start + 1))

    # Members.

    cdef int read(self) except -1:
        """Read the text, from bracket to bracket."""
        cdef cbytes p = self.text
        cdef Open* top
        cdef Py_ssize_t i
        while True:
            if self.depth == 0:
                while self.at < self.size and p[self.at] not in b"{[(":
                    self.at += 1
            self.next()
            if self.token.token == NOTHING:
                break
            if self.token.token == SIGN:
                self.sign(p[self.token.start])
                continue
            top = &self.stack[self.depth - 1]
            if top.keyword and self.token.token == WORD:
                top.keyword = False
                top.key = self.key_of(self.token)
                continue
            if self.token.token == UNCLOSED and top.value == NONE and top.first.token == NOTHING and (
                top.key != NONE or top.bracket != b"{"
            ):
                self.add(top, self.token.start, self.size, OPEN_TEXT)
                break
            if top.key == NONE and top.value == NONE and top.first.token == NOTHING:
                top.first = self.token
                continue
            self.begin_value(top)
            top.last = self.token
            if top.value == NONE:
                top.last.token = NOTHING
            self.add_token(top, self.token)
        for i in range(self.depth):
            self.end_value(&self.stack[i])
        return 0

    cdef int sign(self, uint8_t sign) except -1:
        cdef Open* top = &self.stack[self.depth - 1] if self.depth else NULL  # outside there are opening brackets only
        cdef Piece last
        if sign in b"{[(":
            self.open(sign)
        elif sign in b"}])":
            self.close(b"{" if sign == b"}" else b"[" if sign == b"]" else b"(")
        elif sign in b",;" and not (sign == b"," and self.is_tuple(top)):
            self.end_value(top)
            self.begin_item(top)
        elif sign == b":" and top.first.token != STRING and self.begins_keyword():
            self.end_value(top)
            self.begin_item(top)
            top.keyword = True
        elif top.first.token != NOTHING:  # what may separate a key from its value
            if top.first.token == STRING or top.bracket == b"{" or self.string_follows() or (
                sign == b"=" and top.start > 0 and is_word(self.text[top.start - 1])
            ):
                top.key = self.key_of(top.first)
                top.first.token = NOTHING
            else:
                self.begin_value(top)
        elif top.last.token != NOTHING and (sign != b"=" or self.token.end - self.token.start == 2):
            self.count -= top.last.token == STRING  # it was a member of its own
            top.end = top.before
            self.end_value(top)
            last = top.last
            self.begin_item(top)
            top.key = self.key_of(last)
        return 0

    cdef bint string_follows(self) noexcept:
        """Tell whether the next token begins a string, be it in a call (`Some("x")`), or in Erlang's `<<"x">>`."""
        cdef cbytes p = self.text
        cdef Py_ssize_t at = self.at
        if at < self.size and (p[at] == b"=" or p[at] == b">"):
            at += 1
        if at < self.size and p[at] == b"[":  # as Go has it: map[a:[b] c:[d]]
            return True
        at = after_space(p, at, self.size)
        if self.begins(at, b"<<"):
            at += 2
        while at < self.size and (is_word(p[at]) or p[at] in b".:&(") and p[at - 1] != b"(":
            at += 1
        return at < self.size and p[at] in b"\"'`"

    cdef bint is_tuple(self, Open* top) noexcept:
        """Tell whether a comma stands behind a key: `{key, "value"}`, as Erlang has it."""
        if top.bracket != b"{" or not self.string_follows():
            return False
        if top.first.token == WORD:
            return after_space(self.text, top.start + 1, self.size) == top.first.start
        return top.key != NONE and top.value == NONE  # a keyword

    cdef bint begins_keyword(self) noexcept:
        """Tell whether a colon, just read, begins a keyword as Lisp and Ruby have it: `:key`."""
        cdef Py_ssize_t at = self.token.start
        return at + 1 < self.size and is_word(self.text[at + 1]) and (
            is_space(self.text[at - 1]) or self.text[at - 1] in b"{[(,"
        )

    cdef void begin_item(self, Open* top) noexcept:
        top.key = top.value = top.end = top.before = NONE
        top.first.token = top.last.token = NOTHING
        top.keyword = False

    cdef int open(self, uint8_t bracket) except -1:
        cdef Py_ssize_t start = self.token.start
        cdef Py_ssize_t key = 0
        cdef Py_ssize_t record = NONE
        cdef Open* top
        cdef void* grown
        if self.depth:
            top = &self.stack[self.depth - 1]
            self.begin_value(top)
            key = top.inherited if top.key == NONE else top.key
            record = self.add(top, start, self.size, HOLDER)
            top.last.token = NOTHING
        if bracket == b"(":
            key = self.type_before(start, key)
        if self.depth == self.stack_room:
            grown = realloc(self.stack, (2 * self.stack_room + 16) * sizeof(Open))
            if grown == NULL:
                raise MemoryError
            self.stack = <Open*>grown
            self.stack_room = 2 * self.stack_room + 16
        top = &self.stack[self.depth]
        self.depth += 1
        self.brackets[form(bracket)] += 1
        top.bracket = bracket
        top.start = start
        top.inherited = key
        top.record = record
        self.begin_item(top)
        return 0

    cdef int close(self, uint8_t bracket) except -1:
        """Close the innermost bracket of a form, and those in it; nothing where none is open."""
        cdef Open* closed
        cdef Py_ssize_t end = self.token.end
        while self.brackets[form(bracket)]:
            closed = &self.stack[self.depth - 1]
            self.end_value(closed)
            self.depth -= 1
            self.brackets[form(closed.bracket)] -= 1
            if closed.record != NONE:
                self.records[closed.record].end = end
                if self.stack[self.depth - 1].end != NONE:
                    self.stack[self.depth - 1].end = end
            if closed.bracket == bracket:
                break
        return 0

    cdef int begin_value(self, Open* top) except -1:
        """Take the item's first token, if there is one, for the beginning of its value."""
        cdef Piece first = top.first
        if first.token != NOTHING:
            top.first.token = NOTHING
            self.add_token(top, first)
        return 0

    cdef int add_token(self, Open* top, Piece token) except -1:
        if token.token == STRING:
            self.add(top, token.start, token.end, TEXT)
        elif top.key == NONE and top.value < 0:
            top.value = UNNAMED
        else:
            self.add(top, token.start, token.end, BARE)
        return 0

    cdef Py_ssize_t add(self, Open* top, Py_ssize_t start, Py_ssize_t end, Kind kind) except -2:
        """Add a token, or a container, to the value of an item, and return its record."""
        cdef Record first
        if top.value == NONE:
            top.value = self.count
        elif top.value >= 0:
            first = self.records[top.value]
            if first.kind != HOLDER:  # the last record: what is around both tokens comes before it
                self.records[top.value].kind = HOLDER
                if first.kind != BARE:
                    self.push(first.start, first.end, first.key, first.around, first.kind)
            top.before = first.end if top.end == NONE else top.end
            top.end = end
            if kind == BARE:
                return NONE
        return self.push(start, end, top.inherited if top.key == NONE else top.key, top.start, kind)

    cdef Py_ssize_t push(
        self, Py_ssize_t start, Py_ssize_t end, Py_ssize_t key, Py_ssize_t around, Kind kind
    ) except -2:
        cdef Record* record
        cdef void* grown
        if self.count == self.room:
            grown = realloc(self.records, (2 * self.room + 64) * sizeof(Record))
            if grown == NULL:
                raise MemoryError
            self.records = <Record*>grown
            self.room = 2 * self.room + 64
        record = &self.records[self.count]
        record.start = start
        record.end = end
        record.key = key
        record.around = around
        record.kind = kind
        self.count += 1
        return self.count - 1

    cdef int end_value(self, Open* top) except -1:
        self.begin_value(top)
        if top.value >= 0 and top.end != NONE:
            self.records[top.value].end = top.end
        return 0

    # Texts.

    cdef Py_ssize_t key_of(self, Piece token) except -2:
        """Decode a key, and return its index."""
        cdef bytes inside
        if token.token == STRING:
            inside = unescaped(self.text[token.start + 1:token.end - 1])
        else:
            inside = self.text[token.start:token.end].strip(b"$@-")
        self.keys.append(inside.decode("utf-8", "replace"))
        return len(self.keys) - 1

    cdef Py_ssize_t type_before(self, Py_ssize_t at, Py_ssize_t otherwise) except -2:
        """Return the index of the key that a type before a round bracket is."""
        cdef Py_ssize_t start = at
        cdef bytes name
        while start > 0 and at - start <= LONGEST_TYPE and (
            is_word(self.text[start - 1]) or self.text[start - 1] == b":"
        ):
            start -= 1
        if start == at or not 65 <= self.text[start] <= 90:
            return otherwise
        name = self.text[start:at]
        if name not in TYPES:
            return otherwise
        self.keys.append(name.decode())
        return len(self.keys) - 1

    cdef list members(self):
        """Make members of the records."""
        cdef list made = []
        cdef Record* record
        cdef bytes text
        cdef Py_ssize_t i
        cdef bint is_string
        for i in range(self.count):
            record = &self.records[i]
            is_string = record.kind == TEXT or record.kind == OPEN_TEXT
            if record.kind == HOLDER:
                text = b""
            elif is_string:
                text = unescaped(self.text[record.start + 1:record.end - (record.kind == TEXT)])
            else:
                text = self.text[record.start:record.end]
            made.append(tuple.__new__(Member, (
                self.keys[record.key], record.start, record.end, is_string, text, False, record.around,
                self.text[record.start] if is_string else <uint8_t>b"\"",
            )))
        return made


cdef inline int form(uint8_t bracket) noexcept nogil:
    return 0 if bracket == b"{" else 1 if bracket == b"[" else 2


def members(bytes text not None):
    cdef _Reader reader = _Reader(text)
    reader.read()
    return reader.members()
