"""Texts for tokenizer_reference.py: a few sentences to train on, and seeded generators of ordinary and of hostile ones."""
import unicodedata

ENGLISH = """The cairn stood where three paths met, a heap of grey stones that every traveller had made a little taller. It's
said that nobody's hand may take one away; they'll add one, we've added two, I'd add a third, and you're welcome to. On
Wednesday the 14th of March 1987, at 10:45, it measured 2.75 m and weighed about 3,100 kg. "What's it for?" she asked. He
didn't answer at once. Numbers such as 0, 12, 365, 4096, 65536 and 1000000 are easy to read; 3.14159 and 6.02e23 less so.
If Alice has 12 apples and gives 5 of them to Bob, how many apples does Alice have left? Let's think step by step: 12 - 5
= 7. The answer is \\boxed{7}. Therefore the total cost is $18, which is 20% more than before."""

CODE = """def add(left: int, right: int) -> int:
    \"\"\"Returns the sum.\"\"\"
    return left + right

for (size_t i = 0; i < tokens.size(); ++i) {
\tif (tokens[i] == "<eos>") break;  // the end
\tsum += weights[i] * 0.5f;
}
SELECT name, COUNT(*) FROM users WHERE age >= 18 GROUP BY name;
<div class="row"><a href="https://example.org/?q=1&p=2">link</a></div>
"""

OTHER = [
    "Der Führer der Bergführer überquerte die Straße; größtenteils schneebedeckt, wäre sie für Fußgänger gefährlich gewesen.",
    "L'été dernier, où êtes-vous allés ? Ça m'a coûté 1 234,56 € — c'était déjà trop cher, hélas !",
    "Быстрая коричневая лиса перепрыгивает через ленивую собаку. Сколько будет семь умножить на восемь?",
    "Η γρήγορη καφέ αλεπού πηδάει πάνω από το τεμπέλικο σκυλί.",
    "天地玄黄，宇宙洪荒。日月盈昃，辰宿列张。人工智能正在改变世界，2024年第3季度增长了15%。",
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。カタカナとﾊﾝｶｸも。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "السَّلَامُ عَلَيْكُمْ، كيف حالك اليوم؟ العدد ١٢٣٤٥ كبير.",
    "שָׁלוֹם עוֹלָם, מה שלומך?",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है। १२३",
    "ทุกคนเกิดมามีอิสระและเสมอภาคกันในศักดิ์ศรีและสิทธิ",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi.",
    "İstanbul'da ıspanak yiyen şoförün çığlığı duyuldu; ĳsberg, ŉ, ǰ, ẞ.",
]

TRAINING = [ENGLISH, CODE] + OTHER

WORDS = [w for text in [ENGLISH] + OTHER for w in text.split(" ")]

CONTRACTIONS = ["'s", "'S", "'t", "'T", "'re", "'RE", "'Re", "'ve", "'VE", "'m", "'M", "'ll", "'LL", "'lL", "'d", "'D", "'ſ",
                "'\u017f", "\u2019s", "\u2019T", "''s", "'x", "'ss", "'st", "'\u0130", "'k", "'\u212a"]

SPACES = [" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", "\u00a0", "\u0085", "\u180e", "\u2003", "\u2028", "\u2029",
          "\u202f", "\u3000", "\u1680", "\x0b", "\x0c", "\x1c", "\x1f", "\u200b", "\u200d", "\ufeff", " \n ", "\n ", " \t"]

CONTROL = ["\x00", "\x01", "\x07", "\x1b", "\x7f", "\x80", "\x9f", "\u200e", "\u200f", "\u202e", "\u2066", "\ufffe", "\uffff",
           "\ufffd", "\u0378", "\U000e0001", "\U000e0041", "\U000f1234", "\U0010ffff", "\U0001fffe"]

EMOJI = ["😀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "👩🏽‍🚀", "🇩🇪", "🇩", "✈️", "☺", "1️⃣", "❤️‍🔥", "🧑🏿‍🤝‍🧑🏻", "🫠", "🪿", "🫨"]

MARKS = ["\u0301", "\u0300", "\u0308", "\u0327", "\u0323", "\u031b", "\u0345", "\u0334", "\u05b0", "\u05bc", "\u064b", "\u0651",
         "\u093c", "\u094d", "\u3099", "\u309a", "\u20d0", "\u0f71", "\u0f72", "\u0f74", "\u1ab0", "\u0898", "\u07fd", "\u1e2ae"]

BASES = ["e", "o", "A", "s", "\u00e9", "\u1ea1", "\u01a1", "\u0439", "\u05d0", "\u0644", "\u0915", "\u304b", "\u30cf", "\uac00",
         "\u1112", "\u212b", "\u2126", "\uf900", "\ufb01", "\u0958", "\u2adc", "\U0001d15e", "\u1100", "\u1161", "\u11a8"]

BAD_BYTES = [b"\xff", b"\xfe", b"\xc0\x80", b"\xc3", b"\xe2\x82", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80",
             b"\x80", b"\xbf\xbf", b"\xe0\x80\xaf", b"\xf0\x80\x80\xaf", b"\xf8\x88\x80\x80\x80", b"\xed\xa0\xbd\xed\xb8\x80"]


class Texts:
    """Random texts; `added` are the tokenizer's added tokens."""

    def __init__(self, rng, added, max_length):
        self.rng, self.added, self.max_length = rng, added or ["<s>"], max_length
        self.kinds = [self.sentence, self.sentence, self.code, self.numbers, self.contraction, self.whitespace, self.control,
                      self.emoji, self.combined, self.hangul, self.cjk, self.any_code_points, self.same_script, self.long_word,
                      self.added_token, self.added_fragment, self.punctuation, self.byte_token]

    def take(self, count):
        result = ["", " ", "\n", "\x00", "a", "▁", "'", "\u0301"]
        while len(result) < count:
            result.append(self.invalid() if self.rng.random() < 0.05 else self.mixture())
        return result[:count]

    def mixture(self):
        r = self.rng
        if r.random() < 0.3:
            return r.choice(self.kinds)()
        joint = r.choice(["", "", " ", None])
        pieces = [r.choice(self.kinds)() for _ in range(r.randint(2, 5))]
        return "".join(p + (r.choice(SPACES) if joint is None else joint) for p in pieces)

    def invalid(self):
        r = self.rng
        pieces = [p.encode() for p in (self.mixture(), self.emoji(), self.sentence())]
        for _ in range(r.randint(1, 4)):
            pieces.insert(r.randrange(len(pieces) + 1), r.choice(BAD_BYTES))
        joined = b"".join(pieces)
        cut = r.randrange(len(joined) + 1)
        return joined[:cut] + joined[cut + 1:] if r.random() < 0.5 else joined

    def length(self, usual):
        """A count: mostly about `usual`, at times as large as allowed."""
        r = self.rng
        return r.randint(1, self.max_length) if r.random() < 0.05 else r.randint(1, min(usual, self.max_length))

    def sentence(self):
        return " ".join(self.rng.choice(WORDS) for _ in range(self.length(10)))

    def code(self):
        lines = CODE.split("\n")
        begin = self.rng.randrange(len(lines))
        return "\n".join(lines[begin:begin + self.rng.randint(1, 4)])

    def numbers(self):
        r = self.rng
        digits = r.choice(["0123456789", "0123456789", "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "⅕½²③Ⅷ", "𝟘𝟙𝟚", "一二三"])
        number = "".join(r.choice(digits) for _ in range(self.length(8)))
        return r.choice(["", "-", "$", "+", "#", "0x", "1."]) + number + r.choice(["", "%", ".", ",000", "e-5", " km", "th"])

    def contraction(self):
        r = self.rng
        return "".join(r.choice(WORDS + ["I", "", "x", "é"]) + r.choice(CONTRACTIONS) + r.choice(["", " ", "n", ".", "s"])
                       for _ in range(r.randint(1, 4)))

    def whitespace(self):
        r = self.rng
        if r.random() < 0.4:
            return r.choice(SPACES) * self.length(30) + r.choice(["", "a", "\n", ".", " 1"])
        return "".join(r.choice(SPACES) for _ in range(r.randint(1, 8))) + r.choice(["", "b", "!"])

    def control(self):
        return "".join(self.rng.choice(CONTROL) for _ in range(self.rng.randint(1, 5)))

    def emoji(self):
        return "".join(self.rng.choice(EMOJI) for _ in range(self.rng.randint(1, 4)))

    def combined(self):
        r = self.rng
        return "".join(r.choice(BASES) + "".join(r.choice(MARKS) for _ in range(self.length(4)))
                       for _ in range(r.randint(1, 3)))

    def hangul(self):
        r = self.rng
        if r.random() < 0.5:
            return "".join(chr(r.randrange(0xAC00, 0xD7A4)) for _ in range(r.randint(1, 6)))
        return "".join(chr(r.choice([r.randrange(0x1100, 0x1200), r.randrange(0x1161, 0x1176), r.randrange(0x11A7, 0x11C3)]))
                       for _ in range(r.randint(1, 8)))

    def cjk(self):
        r = self.rng
        blocks = [(0x4E00, 0xA000), (0x4E00, 0x5200), (0x3040, 0x3100), (0x3400, 0x4DC0), (0x20000, 0x2A6E0), (0xF900, 0xFB00),
                  (0xFF00, 0xFFF0), (0x3000, 0x3040), (0x2F00, 0x2FE0), (0x31350, 0x323B0)]
        return "".join(chr(r.randrange(*r.choice(blocks))) for _ in range(self.length(12)))

    def any_code_points(self):
        r = self.rng
        result = []
        while len(result) < 8 and r.random() < 0.9:
            top = r.choice([0x80, 0x250, 0x3000, 0x10000, 0x20000, 0x110000])
            c = r.randrange(top)
            if not 0xD800 <= c < 0xE000:
                result.append(chr(c))
        return "".join(result) or "x"

    def same_script(self):
        r = self.rng
        first = r.choice([0x0370, 0x0530, 0x0590, 0x0700, 0x0900, 0x0E00, 0x0F00, 0x1000, 0x1200, 0x13A0, 0x1780, 0x1D00,
                          0x1E00, 0x2100, 0x2460, 0x2C00, 0xA640, 0xA840, 0xFB00, 0xFE20, 0x10400, 0x11000, 0x11900, 0x12000,
                          0x16D40, 0x1D400, 0x1E900, 0x1F100])
        text = "".join(chr(first + r.randrange(0x80)) for _ in range(r.randint(1, 10)))
        return unicodedata.normalize(r.choice(["NFC", "NFD"]), text) if r.random() < 0.3 else text

    def long_word(self):
        r = self.rng
        if r.random() < 0.5:
            return r.choice(["a", "ab", "the", "é", "=", "-", "가", "🙂", "\u0301"]) * self.length(40)
        return "".join(r.choice("etaoinshrdlucmfwypvbgkjqxz") for _ in range(self.length(60)))

    def added_token(self):
        r = self.rng
        return "".join(r.choice(["", " ", "  ", "a", "\n"]) + r.choice(self.added) for _ in range(r.randint(1, 3)))

    def added_fragment(self):
        r = self.rng
        token = r.choice(self.added)
        begin, end = sorted((r.randrange(len(token) + 1), r.randrange(len(token) + 1)))
        return r.choice([token[begin:], token[:end], token[begin:end], token[:end] + token, token[:-1] + " " + token[-1:]])

    def punctuation(self):
        r = self.rng
        return "".join(r.choice("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~…—“”‘’«»¿¡§¶·°±×÷€£¥™∑√∞≈≠") for _ in range(self.length(8)))

    def byte_token(self):
        r = self.rng
        return "".join(r.choice(["<0x0A>", "<0x41>", "<0xE2>", "<0x", "▁", "▁▁", "Ġ", "Ċ", "<unk>", "</s>", "[UNK]"])
                       for _ in range(r.randint(1, 4)))
