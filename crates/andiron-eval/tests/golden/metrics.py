#!/usr/bin/env python3
"""Makes `metrics.json` and `stems.txt`: what the reference programs give for odd rows, one by one and together.

    python3 crates/andiron-eval/tests/golden/metrics.py evaluate-v1.1.py evaluate-v2.0.py

The arguments are SQuAD's two official scripts, which are no package. Made with sacrebleu 2.6.0, rouge_score 0.1.2 (nltk
3.10.4), scikit-learn 1.9.1, scipy 1.17.1, seqeval 1.2.2, pytrec-eval-terrier 0.5.11 and numpy 2.4.6 on Python 3.11.
"""
import importlib.util
import json
import pathlib
import random
import sys
import warnings

import numpy as np
import pytrec_eval
import scipy.stats
import seqeval.metrics
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.significance import _compute_p_value
from seqeval.scheme import IOB2
from sklearn import metrics as sk

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).parent

# Prediction and references.
TEXTS = [
    ("The dog bit the man.", ["The dog bit the man.", "The dog had bit the man."]),
    ("It wasn't surprising.", ["It was not unexpected.", "No one was surprised."]),
    ("The man had just bitten him.", ["The man bit him first.", "The man had bitten the dog."]),
    ("", ["nothing was said"]),
    ("something was said", [""]),
    ("", [""]),
    ("   ", ["\t\n"]),
    ("word", ["word"]),
    ("word", ["other"]),
    ("a b c", ["a b c"]),
    ("a b c d", ["a b c d"]),
    ("a b c d", ["d c b a"]),
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("It is a guide to action which ensures that the military always obeys the commands of the party",
     ["It is a guide to action that ensures that the military will forever heed Party commands",
      "It is the guiding principle which guarantees the military forces always being under the command of the Party",
      "It is the practical guide for the army always to heed the directions of the party"]),
    ("It is to insure the troops forever hearing the activity guidebook that party direct",
     ["It is a guide to action that ensures that the military will forever heed Party commands"]),
    ("In 1999, 3,000.50 dollars (or 2-3%) were paid; e.g. to A.B.C. Inc.,..",
     ["In 1999 , 3,000.5 dollars ( or 2 - 3 % ) were paid , e.g. to A.B.C. Inc ."]),
    ("1,000-2,000 1.5,6 .5 5. ,5 5, a.b a,b 7..8 9,,0", ["1,000 - 2,000 1.5 , 6 .5 5. , 5 5, a. b a ,b 7. .8 9, ,0"]),
    ("$100 + 50% = ? & more @home #1 ~x ^y `z` {a} [b] <c> |d| \\e/ _f_ *g*", ["$ 100 + 50 % ? & more @ home # 1 {a} [b]"]),
    ("&quot;quoted&quot; &amp;amp; &lt;tag&gt; <skipped> text", ["\"quoted\" &amp; <tag> text"]),
    ("line one\nline two -\nwrapped", ["line one line two wrapped"]),
    ("first line\nsecond line\n\nthird line of the text", ["second line\nfirst line of text\nthe third line"]),
    ("police killed the gunman\nthe gunman was shot down", ["police kill the gunman\nthe gunman police killed"]),
    ("w1 w2 w3 w4 w5", ["w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5"]),
    ("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", ["w1 w2 w3 w4 w5"]),
    ("x y z x y z\nz y x", ["x z y\ny y y\nz x", "z"]),
    ("\n\n", ["\n"]),
    ("...", ["..."]),
    ("!?", ["?!"]),
    ("Hello, \u201cworld\u201d \u2014 it\u2019s 5\u20ac\u2026", ["Hello, \"world\" - it's 5 \u20ac..."]),
    ("caf\u00e9 na\u00efve \u00dcber stra\u00dfe", ["cafe naive uber strasse", "CAF\u00c9 NA\u00cfVE \u00dcBER STRASSE"]),
    ("cafe\u0301", ["caf\u00e9"]),
    ("\u212aelvin \u0130stanbul \u03a3\u0391\u03a3 \u1e9e", ["kelvin istanbul \u03c3\u03b1\u03c2 ss"]),
    ("한국어 문장입니다.", ["한국어 문장입니다."]),
    ("나는 학교에 갔다. 그리고 3,000원을 냈다!", ["나는 어제 학교에 갔다. 그리고 3,000원을 냈다."]),
    ("서울은 대한민국의 수도이다", ["대한민국의 수도는 서울이다", "서울이 대한민국 수도다"]),
    ("\u1112\u1161\u11ab\u1100\u116e\u11a8", ["한국"]),
    ("我爱北京天安门,abc 123。", ["我爱 北京天安门，abc123.", "北京我爱"]),
    ("東京は日本の首都です。ｶﾞﾗｽ", ["東京は、日本の首都。ガラス"]),
    ("\U00020000\U0002a6d6 \u2a6d→∑ \u3400 \u9fbc \ufa2e \u2f81", ["\U00020000 \u2a6d \u2192 \u2211"]),
    ("Привет, мир! №5", ["Привет мир № 5"]),
    ("مرحبا، ١٢٣٫٥ و ٣٪", ["مرحبا ، ١٢٣٫٥ ٣ ٪"]),
    ("नमस्ते दुनिया।", ["नमस्ते, दुनिया।"]),
    ("😀😀 ok 👍🏽", ["😀 ok 👍"]),
    ("a\u00a0b\u3000c\u2028d\u200be\x1cf\x85g", ["a b c d e f g"]),
    ("tab\tseparated\r\nwindows line", ["tab separated windows line"]),
    ("MiXeD CaSe TeXt HERE", ["mixed case text here"]),
    ("(hi) 'there' \"you\" -dash- end.", ["( hi ) ' there ' \" you \" - dash - end ."]),
    ("a", ["a b c d e f g h i j k l m n o p"]),
    ("a b c d e f g h i j k l m n o p", ["a"]),
    ("same length here", ["same size", "one two three four"]),
    ("the cats were running quickly towards happier relations",
     ["the cat was run quick toward happy relational", "cats ran"]),
    ("skies dying news innings proceed enjoying hopefulness analogously", ["sky die new inning proceeds enjoyed hopeful analog"]),
    ("agreed feed plastered bled motoring sing conflated troubled sized hopping falling hissing fizzed failing filing",
     ["agree feeding plaster bleed motor singing conflate trouble size hop fall hiss fizz fail file"]),
    ("repeat repeat repeat repeat", ["repeat"]),
    ("repeat", ["repeat repeat repeat repeat"]),
    ("a a b b a a b b", ["a b a b a b a b", "b b a a"]),
    ("x" * 300, ["x" * 299 + "y"]),
    ("word " * 150, ["word " * 100 + "other " * 60]),
    ("0 00 000 0.0 0,0 -0 +0 1e5 0x1F", ["0 00 000 0.0 0,0 -0 +0 1e5 0x1f"]),
    ("http://example.org/a?b=c&d=e user@example.org", ["http://example.org/a?b=c&amp;d=e user at example.org"]),
    ("don't can't won't it's", ["do n't ca n't wo n't it 's"]),
    ("A U.S.-based company, Inc.", ["The US based company inc"]),
    ("The The a an the", ["the"]),
    ("the\u2011end of a\u00b7b", ["end of b"]),
    ("under_score snake_case", ["under score snake_case"]),
    ("i\u0307 \u0131 I", ["i I \u0130"]),
    ("\ufeffbyte order mark", ["byte order mark"]),
    ("trailing spaces   ", ["   trailing spaces"]),
]
MIXED = random.Random(20)
PARTS = ["the", "cat", "sat", "on", "mats", "3.5", "(a)", "한국", "어", "é.", "dogs", "running", ",", "!", "我", "\n"]
for length in (3, 8, 20, 45, 90):
    made = [MIXED.choice(PARTS) for _ in range(length)]
    changed = [MIXED.choice(PARTS) if MIXED.random() < 0.3 else part for part in made]
    TEXTS.append((" ".join(made), [" ".join(changed), " ".join(changed[::-1])][: 1 + length % 2]))


def number(value):
    """A number of as few digits as the tolerance of the test needs."""
    value = float(value)
    return None if value != value else float(f"{value:.11g}")


def streams(rows):
    most = max(len(references) for _, references in rows)
    return [[references[i] if i < len(references) else None for _, references in rows] for i in range(most)]


def bleu():
    predictions = [prediction for prediction, _ in TEXTS]
    settings = [dict(tokenize=name) for name in ("13a", "intl", "char", "zh", "none")]
    settings += [
        dict(effective_order=True), dict(effective_order=True, tokenize="char", lowercase=True),
        dict(smooth_method="none"), dict(smooth_method="floor"), dict(smooth_method="floor", smooth_value=0.01),
        dict(smooth_method="add-k"), dict(smooth_method="add-k", smooth_value=0.5, effective_order=True, tokenize="intl"),
    ]
    runs = []
    for setting in settings:
        metric = BLEU(**setting, force=True)
        corpus = metric.corpus_score(predictions, streams(TEXTS))
        signature = str(metric.get_signature())
        rows = [metric.sentence_score(prediction, references) for prediction, references in TEXTS]
        runs.append(dict(
            settings=setting, signature=signature, corpus=number(corpus.score), bp=number(corpus.bp),
            precisions=[number(p) for p in corpus.precisions], rows=[number(row.score) for row in rows],
            lengths=[[row.sys_len, row.ref_len] for row in rows] if len(setting) == 1 and "tokenize" in setting else None,
        ))
    return runs


def chrf():
    predictions = [prediction for prediction, _ in TEXTS]
    runs = []
    for setting in (dict(), dict(word_order=2), dict(lowercase=True, whitespace=True), dict(eps_smoothing=True, word_order=1),
                    dict(char_order=3, beta=1), dict(char_order=1, word_order=4, beta=3)):
        metric = CHRF(**setting)
        corpus = metric.corpus_score(predictions, streams(TEXTS))
        signature = str(metric.get_signature())
        rows = [number(metric.sentence_score(*row).score) for row in TEXTS]
        runs.append(dict(settings=setting, signature=signature, name=corpus.name, corpus=number(corpus.score), rows=rows))
    return runs


def rouge():
    kinds = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    runs = []
    for stemmer in (False, True):
        scorer = rouge_scorer.RougeScorer(kinds, use_stemmer=stemmer)
        rows = []
        for prediction, references in TEXTS:
            scores = scorer.score_multi(references, prediction)
            rows.append([[number(part) for part in scores[kind]] for kind in kinds])
        runs.append(dict(stemmer=stemmer, rows=rows))
    return runs


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ANSWERS = [
    ("", []), ("Paris", []), ("the", []), ("", ["Paris"]), ("", [""]), ("the", ["an"]), ("!", ["?", "Paris"]), ("a", ["A!", "b"]),
    ("Eiffel", ["the Eiffel Tower", "Eiffel"]), ("42", ["42.0", "forty two"]), ("4,200", ["4200"]), ("서울", ["서울", "서울특별시"]),
    ("in the 1990s", ["1990s"]), ("a a b b", ["a b c"]), ("x x y", ["x y y", "y"]),
] + TEXTS


def squad(v1, v2):
    rows, together = [], []
    for prediction, answers in ANSWERS:
        qa = dict(id="q", answers=[dict(text=text) for text in answers])
        data = [dict(paragraphs=[dict(qas=[qa])])]
        exact, f1 = v2.get_raw_scores(data, {"q": prediction})
        first = v1.evaluate(data, {"q": prediction}) if answers else None
        rows.append([first and [number(first["exact_match"]), number(first["f1"])], [exact["q"], number(f1["q"])]])
    qas = [dict(id=i, answers=[dict(text=text) for text in answers]) for i, (_, answers) in enumerate(ANSWERS)]
    predictions = dict(enumerate(prediction for prediction, _ in ANSWERS))
    answered = [qa for qa in qas if qa["answers"]]
    first = v1.evaluate([dict(paragraphs=[dict(qas=answered)])], predictions)
    data = [dict(paragraphs=[dict(qas=qas)])]
    raw = v2.get_raw_scores(data, predictions)
    parts = [None, [k for k, v in v2.make_qid_to_has_ans(data).items() if v], [k for k, v in v2.make_qid_to_has_ans(data).items() if not v]]
    together = [[number(first["exact_match"]), number(first["f1"])]]
    together += [[number(e["exact"]), number(e["f1"]), e["total"]] for e in (v2.make_eval_dict(*raw, part) for part in parts)]
    return dict(answers=ANSWERS[: len(ANSWERS) - len(TEXTS)], rows=rows, together=together)


def classification():
    rng = random.Random(3)
    cases = [
        ([0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 0, 1]), ([0, 0, 0], [0, 0, 0]), ([0, 0, 0], [1, 1, 1]), ([0, 1, 0, 1], [1, 1, 1, 1]),
        ([1, 1, 1, 1], [0, 1, 1, 0]), ([0], [0]), ([0], [1]), ([3, 3, 7], [7, 3, 9]),
    ]
    for n, classes in ((60, 2), (70, 3), (80, 9), (65, 40)):
        gold = [rng.randrange(classes) for _ in range(n)]
        cases.append((gold, [g if rng.random() < 0.6 else rng.randrange(classes) for g in gold]))
    out = []
    for gold, predicted in cases:
        scores = [sk.precision_recall_fscore_support(gold, predicted, average=a, zero_division=0)[:3] for a in ("macro", "micro", "weighted")]
        each = sk.precision_recall_fscore_support(gold, predicted, average=None, zero_division=0)
        out.append(dict(
            gold=gold, predicted=predicted, accuracy=number(sk.accuracy_score(gold, predicted)),
            averages=[[number(part) for part in score] for score in scores], mcc=number(sk.matthews_corrcoef(gold, predicted)),
            f1=[number(f) for f in each[2]], confusion=sk.confusion_matrix(gold, predicted).tolist(),
        ))
    return out


def correlation():
    rng = random.Random(4)
    cases = [([1, 2], [1, 2]), ([1, 2], [2, 1]), ([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [2, 2, 2]), ([0.1, 0.1, 0.2, 0.3], [1, 1, 2, 2]),
             ([1e10, 1e10 + 1, 1e10 + 3], [1, 2, 3]), ([-5, 0, 5, 100], [3, 3, 3, 4])]
    for n in (3, 10, 61, 100):
        x = [round(rng.gauss(0, 1), 1 + n % 3) for _ in range(n)]
        cases.append((x, [round(0.5 * value + rng.gauss(0, 1), 2) for value in x]))
    out = []
    for x, y in cases:
        out.append(dict(x=x, y=y, pearson=number(scipy.stats.pearsonr(x, y)[0]), spearman=number(scipy.stats.spearmanr(x, y)[0]),
                        mse=number(sk.mean_squared_error(y, x)), mae=number(sk.mean_absolute_error(y, x))))
    return out


def ranking():
    rng = random.Random(5)
    names = ["d1", "d10", "d2", "D3", "é", "문서", "z"] + [f"n{i}" for i in range(20)]
    queries = []
    for n in range(66):
        documents = rng.sample(names, rng.randrange(1, 12))
        scores = {d: rng.choice([0.1, 0.2, 0.2 + 1e-9, 0.3, -1.0, 1e300, 5.0, rng.random()]) for d in documents}
        judged = {d: rng.choice([0, 0, 1, 1, 2, 3, -1]) for d in rng.sample(names, rng.randrange(1, 9))}
        if n % 3 == 0:
            judged[documents[0]] = 1
        queries.append((scores, judged))
    measures = ["map", "ndcg", "recip_rank", "ndcg_cut.3", "ndcg_cut.10", "recall.1", "recall.3", "recall.10", "P.3", "map_cut.3"]
    keys = [m.replace(".", "_") for m in measures]
    evaluator = pytrec_eval.RelevanceEvaluator({str(i): q[1] for i, q in enumerate(queries)}, set(measures))
    results = evaluator.evaluate({str(i): q[0] for i, q in enumerate(queries)})
    rows = [[number(results[str(i)][key]) for key in keys] for i in range(len(queries))]
    return dict(measures=keys, queries=queries, rows=rows, means=[number(np.mean(column)) for column in zip(*rows)])


def spans():
    rng = random.Random(6)
    fixed = [
        (["I-PER", "I-PER", "O"], ["B-PER", "I-PER", "O"]), (["B-PER", "I-LOC"], ["B-PER", "I-PER"]), (["O", "O"], ["O", "O"]), ([], []),
        (["B", "I", "O", "B"], ["B", "I", "O", "O"]), (["I-A", "B-A", "I-A"], ["B-A", "B-A", "I-A"]), (["B-a-b", "I-a-b"], ["B-a-b", "I-a-b"]),
        (["O", "I-X", "I-Y", "B-Y"], ["O", "B-X", "B-Y", "I-Y"]), (["B-PER-", "I-PER"], ["B-PER", "I-PER"]),
    ]
    ends = [(["S-A", "B-A", "E-A", "E-A", "I-A"], ["B-A", "I-A", "E-A", "S-A", "O"]), (["E-A", "E-B", "S-B"], ["S-A", "S-B", "S-B"]),
            (["BPER", "IPER", "O-x", "."], ["B-PER", "I-PER", "O", "O"]), (["X-A", "X-A", "."], ["X-A", "O", "."])]
    tags = ["O", "O", "B-PER", "I-PER", "B-LOC", "I-LOC", "I-ORG", "B-사람"]
    for _ in range(56):
        gold = [rng.choice(tags) for _ in range(rng.randrange(1, 9))]
        fixed.append(([t if rng.random() < 0.6 else rng.choice(tags) for t in gold], gold))

    def scores(rows, **mode):
        predicted, gold = [p for p, _ in rows], [g for _, g in rows]
        out = []
        for average in ("micro", "macro", "weighted"):
            if not any(t[0] in "BIES" for row in gold + predicted for t in row) and average == "macro":
                out.append([0.0, 0.0, 0.0])
                continue
            make = lambda f: number(f(gold, predicted, average=average, zero_division=0, **mode))
            out.append([make(f) for f in (seqeval.metrics.precision_score, seqeval.metrics.recall_score, seqeval.metrics.f1_score)])
        return out

    strict = dict(mode="strict", scheme=IOB2)
    return dict(
        rows=fixed + ends, n_iob=len(fixed), lenient=scores(fixed + ends), strict=scores(fixed, **strict),
        lenient_rows=[scores([row])[0] for row in fixed + ends], strict_rows=[scores([row], **strict)[0] for row in fixed],
    )


def significance():
    rng = np.random.default_rng(7)
    out = []
    for shift in (0.0, 0.3, 1.0):
        differences = np.round(rng.normal(shift, 0.3, 60), 3)
        sizes = np.abs(differences)
        out.append(dict(difference=shift, differences=differences.tolist(), p=number(_compute_p_value(sizes - sizes.mean(), abs(shift))),
                        interval=[number(v) for v in np.percentile(differences, [2.5, 97.5])]))
    return out


def stems():
    words = set("caresses ponies ties caress cats feed agreed plastered bled motoring sing conflated troubled sized hopping tanned falling "
                "hissing fizzed failing filing happy sky relational conditional rational valenci hesitanci digitizer conformabli radicalli "
                "differentli vileli analogousli vietnamization predication operator feudalism decisiveness hopefulness callousness formaliti "
                "sensitiviti sensibiliti triplicate formative formalize electriciti electrical hopeful goodness revival allowance inference "
                "airliner gyroscopic adjustable defensible irritant replacement adjustment dependent adoption homologou communism activate "
                "angulariti homologous effective bowdlerize probate rate cease controll roll skies dying lying tying news innings inning outings "
                "outing cannings canning howe proceed exceed succeed died dies flied flies spied enjoy enjoyment fulli hopefulli analogi logi "
                "apologi geologi yyyy syzygy yyed aied ying eing abli ooze owing axed ebbed added egged offing 1990s 42nd x2ing".split())
    starts = "form happ nation oper control trad rel agr bel sky cry try act ation log geo fall hop al ess ic y ay us".split()
    ends = ("s es ed ing y ly eed ational tional enci anci izer alli entli eli ousli ization ation ator alism iveness fulness ousness aliti "
            "iviti biliti icate ative alize iciti ical ful ness al ance ence er ic able ible ant ement ment ent ion sion ou ism ate iti ous "
            "ive ize e ll ie ied ies ss sses").split()
    words |= {start + end for start in starts for end in ends}
    stemmer = PorterStemmer()
    words = sorted(word for word in words if len(word) > 3)
    (HERE / "stems.txt").write_text("".join(f"{word} {stemmer.stem(word)}\n" for word in words))


if __name__ == "__main__":
    v1, v2 = (load(path, f"squad{i}") for i, path in enumerate(sys.argv[1:3]))
    made = dict(texts=TEXTS, bleu=bleu(), chrf=chrf(), rouge=rouge(), squad=squad(v1, v2), classification=classification(),
                correlation=correlation(), ranking=ranking(), spans=spans(), significance=significance())
    lines = [f'"{key}":{json.dumps(value, ensure_ascii=False, separators=(",", ":"))}' for key, value in made.items()]
    (HERE / "metrics.json").write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
    stems()
    print({key: len(line) for key, line in zip(made, lines)}, len(TEXTS))
