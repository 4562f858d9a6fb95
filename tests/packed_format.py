"""A decoder of packed files, written from docs/format.md alone; packed_format_test.py runs it."""
import math
import pathlib
import re
import struct
import zlib

DTYPES = ["f64", "f32", "bf16", "i64", "i32", "i8", "u8", "bool"]
WIDTH = dict(f64=64, f32=32, bf16=16, i64=64, i32=32, i8=8, u8=8, bool=8)
MANTISSA = dict(f64=52, f32=23, bf16=7)
PAGE = (pathlib.Path(__file__).resolve().parent.parent / "docs" / "format.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```\n(.*?)```", PAGE, re.S)
TABLE = [int(n) for n in BLOCKS[1].split()]
PRIMER = BLOCKS[2].split()


def default(text):
    if text in ("true", "false"):
        return text == "true"
    if text.startswith("["):
        return [int(n) for n in text[1:-1].split(",") if n]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text  # a dtype


DEFAULTS = {}
for line in BLOCKS[3].splitlines():
    op, *values = line.split()
    DEFAULTS[op] = {name: default(text) for name, text in (v.split("=") for v in values)}


def squash(x):
    x = min(max(x, -2176), 2175) + 2176
    i, w = x >> 7, x % 128
    return (TABLE[i] * (128 - w) + TABLE[i + 1] * w + 64) >> 7


def make_stretch():
    table, x = [], -2176
    for p in range(32769):
        while squash(x) < p:
            x += 1
        table.append(x)
    return table


STRETCH = make_stretch()


def stretch(p):
    return STRETCH[p] if p <= 32768 else -STRETCH[65536 - p]


class Reader:
    def __init__(self, data):
        self.data, self.at, self.range, self.code = data, 0, 2**32 - 1, 0
        for _ in range(4):
            self.code = self.code * 256 + self.next()

    def next(self):
        self.at += 1
        assert self.at <= len(self.data) + 4, "the stream is too short"
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def bit(self, p):
        one = (self.range * p) >> 16
        if self.code < one:
            bit, self.range = 1, one
        else:
            bit, self.code, self.range = 0, self.code - one, self.range - one
        while self.range < 2**24:
            self.code, self.range = (self.code * 256 + self.next()) % 2**32, self.range * 256
        return bit

    def plain(self, n):
        v = 0
        for _ in range(n):
            v = v * 2 + self.bit(32768)
        return v


class Told:
    """In the reader's place: gives bits that are known."""
    def __init__(self, bits):
        self.bits = iter(bits)

    def bit(self, _):
        return next(self.bits)


class Counter:
    def __init__(self, p=32768, n=0):
        self.p, self.n = 64 * p, n

    def P(self):
        return max(1, self.p >> 6)

    def learn(self, bit):
        rate = 65536 // (self.n + 2)
        self.p = self.p + ((2**22 - 1 - self.p) * rate >> 16) if bit else self.p - (self.p * rate >> 16)
        self.n = min(self.n + 1, 1022)

    def read(self, r):
        bit = r.bit(self.P())
        self.learn(bit)
        return bit


class Mixer:
    def __init__(self, *weights):
        self.w = list(weights)

    def read(self, r, inputs, prior=32768):
        s = stretch(prior)
        x = [stretch(i.P() if isinstance(i, Counter) else i) - s for i in inputs]
        p = squash(s + (sum(w * v for w, v in zip(self.w, x)) >> 16))
        bit = r.bit(p)
        e = 65536 * bit - p
        self.w = [min(max(w + ((v * e * 32 + 2**19) >> 20), -2**20), 2**20) for w, v in zip(self.w, x)]
        for i in inputs:
            if isinstance(i, Counter):
                i.learn(bit)
        return bit


class Number:
    def __init__(self):
        self.longer, self.top = {}, {}

    def read(self, r):
        k = 0
        while k < 63 and self.longer.setdefault(k, Counter()).read(r):
            k += 1
        g = 1
        for _ in range(k):
            g = g * 2 + (self.top.setdefault((k, g), Counter()).read(r) if g < 8 else r.bit(32768))
        return g - 1


class Integer:
    def __init__(self):
        self.negative, self.size = Counter(), Number()

    def read(self, r):
        negative = self.negative.read(r)
        v = self.size.read(r)
        return -v - 1 if negative else v


class Text:
    def __init__(self):
        self.counters, self.mixer = {}, Mixer(26214, 26214, 39322, 39322)
        self.last, self.before = [0, 0, 0, 0], b""
        for text in PRIMER:
            data = text.encode() + b"\0"
            self.read(Told([c >> b & 1 for c in data for b in range(7, -1, -1)]))

    def read(self, r):
        text = b""
        while True:
            above = self.before[len(text)] if len(text) < len(self.before) else 0
            node = 1
            for _ in range(8):
                keys = [(0, self.last[3], node), (1, tuple(self.last[2:]), node), (2, tuple(self.last), node),
                        (3, above, self.last[3], node)]
                node = node * 2 + self.mixer.read(r, [self.counters.setdefault(k, Counter()) for k in keys])
            c = node - 256
            self.last = self.last[1:] + [c]
            if c == 0:
                self.before = text
                return text.decode()
            text += bytes([c])


class Architecture:
    def __init__(self, r):
        self.r = r
        models = ("count ndim first_size size new_size dtype kind outputs operand_kind ago op operands fields type "
                  "factors made")
        self.m = {name: Number() for name in models.split()}
        self.I, self.J, self.text = Integer(), Integer(), Text()
        self.flags, self.sizes = {}, []
        self.names = set()

        self.inputs = [self.input() for _ in range(self.number("count"))]
        self.leaves = [self.leaf() for _ in range(self.number("count"))]
        self.values, self.highest_leaf = len(self.inputs) + len(self.leaves), -1
        self.ops, self.last, self.nodes = [], {}, []
        for _ in range(self.number("count")):
            self.nodes.append(self.node())
        self.outputs = [self.operand() for _ in range(self.number("outputs"))]

    def number(self, name):
        return self.m[name].read(self.r)

    def flag(self, name):
        return self.flags.setdefault(name, Counter()).read(self.r)

    def dtype(self):
        return DTYPES[self.number("dtype")]

    def name(self):
        name = self.text.read(self.r)
        self.names.add(name)
        return name

    def dims(self):
        return [[self.I.read(self.r), self.J.read(self.r)] for _ in range(self.number("ndim"))]

    def shape(self):
        shape = []
        for place in range(self.number("ndim")):
            ago = self.number("size" if place else "first_size")
            if ago < len(self.sizes):
                size = self.sizes.pop(ago)
            else:
                size = self.number("new_size")
                self.sizes = self.sizes[:7]
            self.sizes.insert(0, size)
            shape.append(size)
        return shape

    def input(self):
        return dict(name=self.name(), dtype=self.dtype(), shape=self.dims())

    def leaf(self):
        leaf = dict(kind=self.number("kind"), name=self.name(), dtype=self.dtype(), shape=self.shape())
        if leaf["kind"] == 0:
            leaf["frozen"], leaf["masked"] = self.flag("frozen"), self.flag("masked")
            leaf["dense"] = leaf["masked"] and self.flag("dense")
        if leaf["kind"] == 2 and self.flag("uniform"):
            leaf["uniform"] = self.dims()
        return leaf

    def operand(self):
        first, end = len(self.inputs), len(self.inputs) + len(self.leaves)
        kind = self.number("operand_kind")
        if kind == 0:
            v = first - 1 if self.values == end else self.values - 1
        elif kind == 1:
            v = first + self.highest_leaf + 1
        elif kind == 2:
            return None
        else:
            v = self.values - 1 - self.number("ago")
        if first <= v < end:
            self.highest_leaf = max(self.highest_leaf, v - first)
        return v

    def expected(self, op, operands):
        name = op
        for v in operands:
            if v is not None and len(self.inputs) <= v < len(self.inputs) + len(self.leaves):
                leaf = self.leaves[v - len(self.inputs)]["name"]
                if "." in leaf:
                    name = leaf[:leaf.rindex(".")]
                    break
        tries = [name] + [f"{name}_{i}" for i in range(1, len(self.names) + 2)]
        return next(t for t in tries if t not in self.names)

    def attributes(self):
        fields = {}
        for _ in range(self.number("fields")):
            name, kind = self.text.read(self.r), self.number("type")
            if kind == 0:
                fields[name] = self.I.read(self.r)
            elif kind == 1:
                fields[name] = struct.unpack(">d", struct.pack(">Q", self.r.plain(64)))[0]
            elif kind == 2:
                fields[name] = bool(self.r.bit(32768))
            elif kind == 3:
                fields[name] = [self.I.read(self.r) for _ in range(self.number("ndim"))]
            else:
                fields[name] = self.dtype()
        per_batch = []
        if self.flag("per_batch"):
            per_batch = [self.J.read(self.r) for _ in range(self.number("factors"))]
        return fields, per_batch

    def like_last(self, op, mode):
        if not self.flag("same" + mode):
            self.last[op, mode] = self.attributes()
        return self.last.setdefault((op, mode), ({}, []))

    def complete(self, op, attributes):
        fields, per_batch = attributes
        assert set(fields) <= set(DEFAULTS.get(op, {})), (op, fields)
        return {**DEFAULTS.get(op, {}), **fields}, per_batch

    def node(self):
        op = self.number("op")
        if op == 0:
            self.ops.append(self.text.read(self.r))
            op = len(self.ops)
        node = dict(op=self.ops[op - 1])
        node["inputs"] = []
        for _ in range(self.number("operands")):
            node["inputs"].append(self.operand())
        node["name"] = self.expected(node["op"], node["inputs"])
        if not self.flag("expected"):
            node["name"] = self.text.read(self.r)
        self.names.add(node["name"])
        node["attributes"] = self.complete(node["op"], self.like_last(op, "eval"))
        node["train"] = self.complete(node["op"], self.like_last(op, "train")) if self.flag("has train") else None
        node["train_only"] = self.flag("train only")
        node["outputs"] = self.number("made")
        node["first"] = self.values
        self.values += node["outputs"]
        return node


class Bits:
    def __init__(self, text):
        self.text, self.at = text, 0

    def take(self, n):
        self.at += n
        assert self.at <= len(self.text)
        return self.text[self.at - n:self.at]

    def gamma(self):
        n = 0
        while self.take(1) == "0":
            n += 1
        return int("1" + self.take(n), 2)


def huffman(bits, alphabet, count):
    used = bits.gamma() - 1
    if used == 0:
        return []
    if used == 1:
        return [bits.gamma() - 1] * count
    lengths, before = [], 1
    while used > 0:
        z = bits.gamma() - 1
        before += z // 2 if z % 2 == 0 else -(z + 1) // 2
        lengths.append(before)
        used -= before > 0
        if before == 0:
            lengths += [0] * (bits.gamma() - 1)
    assert len(lengths) <= alphabet
    codes, code, length = {}, -1, 0
    for size, symbol in sorted((n, s) for s, n in enumerate(lengths) if n > 0):
        code = (code + 1) << (size - length)
        length = size
        codes[format(code, f"0{size}b")] = symbol
    assert math.isclose(sum(2.0**-n for n in lengths if n > 0), 1)
    symbols = []
    for _ in range(count):
        read = bits.take(1)
        while read not in codes:
            read += bits.take(1)
        symbols.append(codes[read])
    assert set(bits.text[bits.at:]) <= {"0"} and len(bits.text) - bits.at < 8
    return symbols


class Tensors:
    def __init__(self, r, by_huffman):
        self.r, self.by_huffman = r, by_huffman
        self.split, self.book, self.again, self.grid, self.first = Counter(), Counter(), Counter(), Counter(), Integer()
        self.N, self.L, self.between = Number(), Number(), Number()
        self.signs, self.exponents, self.integers, self.codebook = {}, {}, {}, []
        self.mask_mixer, self.made = Mixer(*[16384] * 5), []
        self.alone, self.after, self.shared = Mixer(39322, 26214), Mixer(26214, 26214, 26214), {}

    def bits(self):
        return Bits("".join(str(self.r.bit(32768)) for _ in range(self.L.read(self.r))))

    def value(self, dtype, m):
        """A pattern of bits for floats, a number for integers."""
        if dtype not in MANTISSA:
            return self.integers.setdefault(dtype, Integer()).read(self.r)
        mantissa = MANTISSA[dtype]
        exponent = WIDTH[dtype] - 1 - mantissa
        v, node = self.signs.setdefault(dtype, Counter()).read(self.r), 1
        for _ in range(exponent):
            node = node * 2 + self.exponents.setdefault((dtype, node), Counter()).read(self.r)
        v = v << exponent | node - (1 << exponent)
        return (v << m | self.r.plain(m)) << (mantissa - m)

    def huffman_mask(self, n):
        w = self.r.plain(4) + 1
        assert w <= 15
        entries = self.N.read(self.r)
        mask = []
        for g in huffman(self.bits(), 2**w + 1, entries):
            mask += [0] * 2**w if g == 2**w else [0] * g + [1]
        return mask + [0] * (n - len(mask))

    def mask(self, shape):
        n = math.prod(shape)
        if self.by_huffman:
            return self.huffman_mask(n)
        rows = shape[0] if len(shape) >= 2 else 1
        cols, group = n // rows, math.prod(shape[2:])
        prior, alike = squash(34 * (self.r.plain(7) - 64)), self.r.plain(1)
        m = len(self.made)
        made = m > 0 and cols % m == 0
        if group == 1 and made:
            group = cols // m
        total, one, near = sum(self.made), Counter(prior, 16), {}
        in_col, in_group, in_row = [0] * cols, [0] * (cols // group), [0] * rows
        mask = []
        for r in range(rows):
            for c in range(cols):
                if alike:
                    bit = one.read(self.r)
                else:
                    def density(k, n, h):
                        return max(1, (65536 * k + h * prior) // (n + h))

                    def at(up, left):
                        return mask[(r - up) * cols + c - left] if r >= up and c >= left else 0
                    maker = prior
                    if made:
                        b = self.made[c // (cols // m)]
                        maker = min(max(prior * (b + 1) * m // (total + m), 1), 65535)
                    context = (at(0, 1) + 2 * at(0, 2) + 4 * at(0, 3) + 8 * at(1, 0) + 16 * at(2, 0) + 32 * (c % 4))
                    bit = self.mask_mixer.read(self.r, [
                        density(in_row[r], c, 16), density(in_col[c], r, 8),
                        density(in_group[c // group], r * group + c % group, 64), maker,
                        near.setdefault(context, Counter(prior, 16))], prior)
                mask.append(bit)
                in_row[r] += bit
                in_col[c] += bit
                in_group[c // group] += bit
        if rows > 1:
            self.made = in_row
        return mask

    def symbols(self, k, n):
        if self.by_huffman:
            return huffman(self.bits(), k, n)
        if k == 1:
            return [0] * n
        use, depth = self.r.plain(1), (k - 1).bit_length()
        own, after, before, symbols = {}, {}, None, []
        for _ in range(n):
            node = 1
            for b in range(depth - 1, -1, -1):
                if ((node * 2 + 1) << b) - (1 << depth) >= k:
                    node *= 2
                    continue
                inputs = [own.setdefault(node, Counter()), self.shared.setdefault((depth, node), Counter())]
                if use:
                    inputs.append(after.setdefault((before, node), Counter()))
                node = node * 2 + (self.after if use else self.alone).read(self.r, inputs)
            symbols.append(node - (1 << depth))
            before = symbols[-1] >> max(depth - 6, 0)
        return symbols

    def scale(self, m):
        return struct.unpack("<d", struct.pack("<Q", self.value("f64", m)))[0]

    def multiples(self, count):
        scale = self.scale(self.r.plain(6))
        k = [self.first.read(self.r)]
        while len(k) < count:
            k.append(k[-1] + self.between.read(self.r) + 1)
        return [struct.unpack("<I", struct.pack("<f", scale * n))[0] for n in k]

    def by_codebook(self, dtype, n):
        if not self.again.read(self.r):
            count = self.N.read(self.r)
            if dtype == "f32" and self.grid.read(self.r):
                self.codebook = self.multiples(count)
            else:
                self.codebook = []
                m = self.r.plain(6) if dtype in MANTISSA else 0
                for i in range(count):
                    if i > 0 and dtype not in MANTISSA:
                        self.codebook.append(self.codebook[-1] + self.between.read(self.r) + 1)
                    else:
                        self.codebook.append(self.value(dtype, m))
        return [self.codebook[s] for s in self.symbols(len(self.codebook), n)]

    def by_runs(self, there, cols, n):
        length = self.N.read(self.r)
        assert 4 <= length <= cols
        low, count, m = self.first.read(self.r), self.N.read(self.r), self.r.plain(6)
        runs = [(i // cols, i % cols // length) for i, t in enumerate(there) if t]
        scales = {}
        for run in runs:
            if run not in scales:
                scales[run] = self.scale(m)
        return [struct.unpack("<I", struct.pack("<f", scales[run] * (low + s)))[0]
                for run, s in zip(runs, self.symbols(count, n))]

    def kept_values(self, dtype, n, there, cols):
        if self.book.read(self.r):
            return self.by_codebook(dtype, n)
        m = self.r.plain(6) if dtype in MANTISSA else 0
        if m == 63:
            return self.by_runs(there, cols, n)
        if m != 62:
            return [self.value(dtype, m) for _ in range(n)]
        is_other = self.mask([n])
        m = self.r.plain(6)
        others = iter([self.value(dtype, m) for _ in range(sum(is_other))])
        rest = iter(self.by_codebook(dtype, n - sum(is_other)))
        return [next(others if o else rest) for o in is_other]

    def tensor(self, leaf):
        """Its mask (None: none) and elements."""
        n, dtype = math.prod(leaf["shape"]), leaf["dtype"]
        if n == 0:
            return ([] if leaf.get("masked") else None), []
        if dtype == "bool":
            return None, self.mask(leaf["shape"])
        mask = there = None
        if leaf.get("masked"):
            mask = there = self.mask(leaf["shape"])
        elif self.split.read(self.r):
            there = self.mask(leaf["shape"])
        kept = n if there is None else sum(there)
        values = []
        if kept > 0:
            rows = leaf["shape"][0] if len(leaf["shape"]) >= 2 else 1
            values = self.kept_values(dtype, kept, there or [1] * n, n // rows)
        if there is not None:
            rest = iter(values)
            values = [next(rest) if t else 0 for t in there]
        return mask, values


def decode(data):
    assert data[:4] == b"HON\x01"
    assert struct.unpack("<I", data[4:8])[0] == zlib.crc32(data[8:])
    size, at = 0, 8
    while True:
        size |= data[at] % 128 << 7 * (at - 8)
        at += 1
        if data[at - 1] < 128:
            break
    r = Reader(data[at:])
    by_huffman = r.bit(32768)
    a = Architecture(r)
    need = sum(math.prod(x["shape"]) * (WIDTH[x["dtype"]] // 8 + (1 if x.get("masked") else 0)) for x in a.leaves)
    assert need == size
    assert all(math.prod(x["shape"]) < 2**32 for x in a.leaves)
    tensors = Tensors(r, by_huffman)
    for leaf in a.leaves:
        leaf["mask"], leaf["elements"] = tensors.tensor(leaf)
    assert r.at >= len(r.data)
    return a
