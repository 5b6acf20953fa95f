#!/usr/bin/env python3
"""Writes tokenizer_lines.txt: sentences in many languages and scripts, and what Unicode has of traps.

    python3 tests/parity/make_tokenizer_lines.py > tests/parity/tokenizer_lines.txt
"""

import random
import sys
import unicodedata

SENTENCES = """
The quick brown fox jumps over the lazy dog.
Don't stop; it's the dogs' bone, isn't it?
I've paid $1,234.56 (about 1.100,20 €) -- that's 20% off!
E-mail me at first.last+tag@example.org, or see http://example.org/a_b?c=d&e=#f
Unbelievably, antidisestablishmentarianism tokenizes into electroencephalographically odd pieces.
naïve café résumé coöperate façade jalapeño Zürich Ærøskøbing
HELLO WORLD Hello World hELLO wORLD
The temperature fell to -40°C; that's -40°F too, ±0.5.
x² + y³ = z⁴, ½ + ¼ = ¾, H₂O, 10⁻⁹
Der schnelle braune Fuchs springt über den faulen Hund. Straße, STRASSE, ẞ, Öl, Übermut.
Donaudampfschifffahrtsgesellschaftskapitänsmütze liegt im Schloß.
Le cœur a ses raisons que la raison ne connaît point. L'été, où êtes-vous ? « Ici ! »
¿Dónde está el niño? ¡Allí, en el ático del señor Muñoz!
Não há mal que sempre dure. A maçã, o pão, a avó e o avô.
Perché no? Così è la vita, più o meno: città, virtù, caffè.
Het ijs smelt; één keer is geen keer. IJsselmeer, IJSBEER, ijs
Å gå på ski i Ålesund er gøy; blåbærsyltetøy smaker godt.
Räksmörgås och köttbullar åt Åsa i Malmö.
Hyvää päivää, yötyö ja hääyöaie. Äänekoski!
Þetta er íslenska: ð, þ, æ og ö. Ég á bók.
Zażółć gęślą jaźń. Łódź, Kraków, Gdańsk — źdźbło.
Příliš žluťoučký kůň úpěl ďábelské ódy.
Árvíztűrő tükörfúrógép; őszintén szólva.
Ștefan și Țepeș mănâncă brânză în București.
Čuvaj se šuma, đače, i žaba u ćošku.
Lietuvių kalba: ąžuolas, ėjimas, šūksnis, žąsis.
Latviešu: ķirbis, ņemt, ļoti, ģimene, šķīvis.
Eesti keel: jäääär, õun, šokolaad, tänaöösel.
İstanbul'da ısı ölçümü: IĞDIR ve iğdır, Şişli, çığ.
Tiếng Việt: Chữ quốc ngữ, người, đường, ưu điểm, Nguyễn Ái Quốc.
Bahasa Indonesia: anak-anak bermain di pekarangan.
Kiswahili: Habari za asubuhi? Ninakupenda.
Yorùbá: Ẹ káàárọ̀, ọmọ mi. Ṣé dáadáa ni?
Hausa: ɓarawo, ɗaki, ƙofa, ƴaƴa.
Ελληνικά: Η γρήγορη αλεπού πηδάει. ΟΔΥΣΣΕΥΣ, Ὀδυσσεύς, ᾄδω, μέσος.
Съешь же ещё этих мягких французских булок, да выпей чаю. ЁЖ и йод.
Їжак, ґанок, єдність, п'ять — українська мова.
Ўсе людзі нараджаюцца вольнымі. Беларусь.
Ђорђе Ћирић и Љубица Њежић: ћирилица.
Қазақша: Әлеуметтік желі, ұлттық, һәм өңір.
Монгол хэл: Үүрд мөнх өвөл.
Հայերեն: Բոլոր մարդիկ ծնվում են ազատ։ Ինչո՞ւ, ահա՛։
ქართული: ყველა ადამიანი იბადება თავისუფალი. ᲥᲐᲠᲗᲣᲚᲘ
עברית: שָׁלוֹם עוֹלָם, מה שלומך? ״ציטוט״ ג׳ירפה
العربية: مرحبا بالعالم، كيف حالك؟ الكِتَابُ مُفِيدٌ. ١٢٣
فارسی: سلام دنیا، حال شما چطور است؟ می‌خواهم ۱۲۳
اردو: یہ ایک جملہ ہے۔ کیا حال ہے؟
ܫܠܡܐ ܥܠܡܐ ܠܫܢܐ ܣܘܪܝܝܐ
हिन्दी: सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता। क्षत्रिय १२३
मराठी: आम्ही शाळेत जातो; ज्ञान, कृष्ण.
বাংলা: সব মানুষ স্বাধীনভাবে জন্মগ্রহণ করে। ১২৩ কেমন আছেন?
ਪੰਜਾਬੀ: ਸਾਰੇ ਇਨਸਾਨ ਆਜ਼ਾਦ ਜੰਮਦੇ ਹਨ।
ગુજરાતી: બધા માણસો સ્વતંત્ર જન્મે છે.
ଓଡ଼ିଆ: ସବୁ ମଣିଷ ସ୍ୱାଧୀନ।
தமிழ்: மனிதர்கள் அனைவரும் சுதந்திரமாகவே பிறக்கின்றனர். ௧௨௩
తెలుగు: ప్రతిపత్తిస్వత్వముల విషయమున మానవులెల్లరును.
ಕನ್ನಡ: ಎಲ್ಲಾ ಮಾನವರೂ ಸ್ವತಂತ್ರರಾಗಿಯೇ ಹುಟ್ಟಿದ್ದಾರೆ.
മലയാളം: മനുഷ്യരെല്ലാവരും സ്വതന്ത്രരായി ജനിച്ചവരാണ്.
සිංහල: සියලු මනුෂ්‍යයෝ නිදහස්ව උපත ලබා ඇත.
ไทย: มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกัน ๑๒๓
ລາວ: ມະນຸດເກີດມາມີສິດເສລີພາບ.
မြန်မာ: လူတိုင်းသည် လွတ်လပ်စွာ မွေးဖွားလာသည်။
ខ្មែរ: មនុស្សទាំងអស់កើតមកមានសេរីភាព។
བོད་ཡིག: འགྲོ་བ་མིའི་རིགས་རྒྱུད་ཡོངས་ལ།
አማርኛ: የሰው ልጅ ሁሉ ሲወለድ ነጻ ነው። ሰላም፣ እንዴት ነህ፤
ᏣᎳᎩ: ᎣᏏᏲ ᏙᎯᏧ? ꮳꮃꭹ
ᐃᓄᒃᑎᑐᑦ: ᐊᐃᓐᖓᐃ᙮ ᓄᓇᕗᑦ
中文：人人生而自由，在尊严和权利上一律平等。“引号”、《书名》
繁體中文：他們賦有理性和良心，並應以兄弟關係的精神相對待。
日本語：すべての人間は、生まれながらにして自由です。カタカナ、ﾊﾝｶｸ、がぎぐげご、パピプペポ。
東京タワーは高さ333メートル。々〆ヶ〇
한국어: 모든 인간은 태어날 때부터 자유로우며 존엄하다. 각 힣 ㄱㄴㄷ
ꆈꌠꉙ: ꊿꂷꃅꄿꐨꐥ꓿
ⴰⵣⵓⵍ ⴼⵍⵍⴰⵡⵏ, ⵜⴰⵎⴰⵣⵉⵖⵜ
ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ᛫ᚠᛁᚱᚪ
ᚁᚂᚃ᚛ᚉᚑᚅᚔᚉ᚜ ogham
𐌼𐌰𐌲 𐌲𐌻𐌴𐍃 𐌹̈𐍄𐌰𐌽 𐒰𐒱 𐐀𐐨 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝒽𝑒𝓁𝓁𝑜 𝟙𝟚𝟛
Emoji: 😀 👍🏽 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 ❤️ ☃ ✈︎ ©®™
Math: ∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β → ∞, ∑∏∫√, a≠b, ≤≥, 𝛼𝜷
Currency: $ ¢ £ ¤ ¥ ฿ ₠ ₹ ₽ ₿ ＄ ￠ and 5€/kg
Quotes: 'single' "double" ‘curly’ “curly” ‚low‘ „low“ ‹angle› «angle» 「corner」『white』
Dashes: a-b a‐b a‑b a‒b a–b a—b a―b a−b a﹣b a－b ~ 〜 ～
Dots: ... … ‥ · • ‧ ・ 。 ． ､
Brackets: ()[]{}<> ⟨⟩ ⟦⟧ 【】 （） ［］ ｛｝ ⁅⁆ ⸨⸩ ❨❩
Full width: ＡＢＣ ａｂｃ １２３ ！？ ＠＃
Ligatures: ﬁ ﬂ ﬀ ﬃ ﬆ œ æ ĳ ǆ ǅ Ǆ ŉ ẚ
Roman: Ⅳ ⅳ ⅯⅭⅮ ↀ Ⓐⓐ ①⑩ ㊀ ㈱ ㎏ ℃ ℡ №
[CLS] and [SEP] inside a text, [MASK]ed, [PAD], [UNK], [cls], [CLS][SEP]x[MASK]
a[MASK]b [ MASK ] [[MASK]] [MAS K] [unused1] ##ing # # ## ###
<script>alert("x")</script> && rm -rf ~ ; `ls` $(ls) {{x}} %s %n \\x00 \\u202e
snake_case camelCase PascalCase kebab-case SCREAMING_SNAKE x_1 __init__ a.b.c a::b
3.14159 1e-10 0x1F 1_000_000 1,000 ١٫٥ 12:30:45 2024-02-29 +49-30-123456
ALLCAPS ÀÉÎÕÜ àéîõü ĀĒĪŌŪ ăĕĭŏŭ ȀȂ Ǟ ǟ Ṩ ṩ ệ Ệ
""".strip("\n").split("\n")

WORDS = ("attention head query key value softmax weight mask causal batch sequence token model layer "
         "naïve über 東京 мир שלום سلام नमस्ते สวัสดี 안녕 café Ωmega i̇ ß fi½ x² don't e-mail A.B.C. ½").split()
SEPARATORS = [" ", "  ", "\t", "\u00a0", "\u2003", "\u3000", "\u2028", "\u200b", "\u00ad", "\r", "-",
              "\u2010", "_", "/", "\ufeff", "\u2060", "\u200d", "\v", "\f", "\u0085", "\u180e", ""]


def every_script():
    """A few letters, marks and signs of every 128th part of the planes that hold text."""
    for start in list(range(0xA0, 0x3000, 0x80)) + list(range(0x3000, 0xFF00, 0x400)) + list(
            range(0x10000, 0x20000, 0x400)) + [0x20000, 0x2A6D0, 0x2B810, 0x2CEA0, 0x2F800, 0x30000,
                                               0xE0000, 0xE0100, 0xF0000, 0x10FF00]:
        points = [start + 7 * i for i in range(18)]
        letters = [chr(p) for p in points if not 0xD800 <= p <= 0xDFFF]
        yield "".join(letters[:6]) + " " + "a".join(letters[6:12]) + " " + " ".join(letters[12:])


def traps():
    yield from ["", " ", "\t \t", "\u00a0", "\u200b\u200c\u200d", "\ufeffbyte order mark", "a\x00b",
                "bell\x07 escape\x1b[31mred\x1b[0m", "a\x7fb\x80c\x9fd", "\ufffd", "a\ufffdb",
                "right\u202eto left\u202c", "\u2066isolate\u2069", "soft\u00adhyphen", "tag\U000e0041s",
                "private \ue000 use \U000f0000", "unassigned \u0378 \u0380 \u2fe0 \U0001fbff"]
    yield from [letter * n for letter in "aé中" for n in (99, 100, 101)]
    yield from ["a" * 60 + "\u0301" * 60, "a\u0301\u0323\u0308", "a\u0323\u0301\u0308", "\u0301start"]
    yield from ["e\u0301 \u00e9", "\u212b \u00c5 A\u030a", "\u1e9b\u0323", "\uac01 \u1100\u1161\u11a8",
                "\u0344 \u0340 \u0341", "\u2126 \u03a9", "\ufb1d \ufb2a \ufb4f", "\u0958 \u09dc \u0a33"]
    yield from ["\u0130stanbul \u0131 I i", "\u1e9e \u00df SS", "\u03a3 \u03c3 \u03c2 \u039f\u03a3",
                "\u01c5 \u01c8 \u01cb \u01f2", "\u13a0 \uab70 \u10a0 \u2d00 \u1c90", "\ua64a \u1c88"]


def later_characters():
    """Marks and punctuation that Unicode got after version 8."""
    for points in ["\u2e43\u2e44\u2e4f\u2e52\u2e5d", "\u09fd\u0a76\u0c77\u0c84", "\u061d\u08e2\u0890",
                   "\u1ac1\u1df8\u0d3b", "\U00011660\U0001183b\U00011a3f", "\U0001e944\U0001e95e",
                   "\u1734\u166d\U000111c9\U000110cd", "\u2e42\u2e3a\u055a\u1ab0\u1dff"]:
        yield "a" + "b".join(points) + "c"
        yield " ".join(points)


def mixtures(count):
    rng = random.Random(20)  # the same lines every time
    for _ in range(count):
        words = rng.choices(WORDS, k=rng.randint(2, 9))
        line = "".join(word + rng.choice(SEPARATORS) for word in words)
        form = rng.choice(["NFC", "NFD", "NFC", "NFKC"])
        yield unicodedata.normalize(form, rng.choice([str, str.upper, str.title])(line))


def main():
    lines = list(SENTENCES)
    lines += [sentence.upper() for sentence in SENTENCES]
    lines += [unicodedata.normalize("NFD", sentence) for sentence in SENTENCES]
    lines += list(every_script()) + list(traps()) + list(later_characters()) + list(mixtures(120))
    kept = [line for line in dict.fromkeys(lines) if "\n" not in line]
    sys.stdout.buffer.write("".join(line + "\n" for line in kept).encode())


if __name__ == "__main__":
    main()
