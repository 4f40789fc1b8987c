"""Words of a human's message: whether it is clear without the messages before it, and its small talk.

Counts words of a few common languages; of others it takes every word for a content word, so that a
message of two words is self-contained.
"""

import re

LONGEST = 12
"""A message of more words than this is self-contained."""
LONGEST_SMALL_TALK = 200
"""Characters of small talk at the end of a message, and of one sentence of it."""
CONTENT_WORDS = 2
"""Content words of a self-contained message."""
CONTENT_WORDS_BESIDE_ANAPHORA = 3
"""The same where a word points back: its antecedent may be in the message itself."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FUNCTION_WORDS = _words(
    """
    a an the of in on at to for from by with about into as than per and or but so then also too if because
    is are was were be been am do does did has have had can could will would shall should may might must
    what which who whom whose where when why how i you we me us my your our mine yours ours one ones
    yes no not ok okay sure please really just only now here there any some all very much many more most
    less again further continue go on next else instead other another make give tell show explain elaborate
    let lets try say mean details detail example examples longer shorter simpler better briefly
    der die das ein eine einen einem einer des dem den und oder aber auch dann von vom zu zum zur im in auf
    mit für aus bei nach ist sind war waren sein hat haben kann können wird werden was wer wen wem wo wann
    warum wie welche welcher welches ich du wir ihr mir dir uns mein dein unser ja nein nicht bitte noch
    mal nochmal weiter mehr genauer kürzer länger erkläre und
    le la les un une des du de et ou mais aussi alors à au aux en dans sur pour par avec est sont était être
    a ont quoi quel quelle quels quelles qui où quand pourquoi comment que je tu nous vous mon ton notre oui
    non pas plus encore stp
    el los las una unos unas y o pero también entonces del al con por para es son era ser ha han qué cuál
    quién dónde cuándo cómo yo tú mi tu nuestro sí más otra vez
    il lo gli uno e ma anche di da con su per è sono che quale chi dove quando come perché io mio no ancora
    """
)
_ANAPHORA = _words(
    """
    it its itself that this these those they them their theirs he him his she her hers same former latter
    es ihn ihm sie ihnen dies diese dieser dieses dessen deren davon damit daraus derselbe dasselbe
    ça cela ceci celui celle ceux lui leur leurs
    eso esto ese esa aquello ello ellos ellas suyo
    questo quello ciò essa esso loro
    """
)
_SMALL_TALK = _words(
    """
    hello hi hey yo howdy greetings welcome morning evening afternoon night good thanks thank thx cheers bye
    goodbye see nice great cool awesome perfect sorry lol haha
    hallo moin servus danke vielen dank tschüss guten gute gut morgen abend tag nacht super entschuldigung
    bonjour salut merci beaucoup bonsoir bonne bon revoir désolé
    hola gracias adiós buenos buenas días tardes noches perdón
    ciao grazie mille buongiorno buonasera scusa
    """
)
_PLEASANTRIES = _SMALL_TALK | _words(
    """
    friend friends everyone team assistant hope hopes hoping well fine doing going having day week weekend
    today advance appreciate appreciated kind kindly regards help helps helping helped bother lovely pleasure
    later soon best wishes wish wondering wonder something question quick small short favor favour looking
    forward answer answers reply hearing family weather sunny love glad happy lot bit way
    hoffe geht schönen voraus grüße liebe lieber freundlichen hilfe
    espère allez bien journée avance cordialement
    espero mucho muchas antemano saludos
    spero bene anticipo saluti
    """
)
"""Words around a message that say nothing about it."""
_GREETINGS = frozenset(
    {
        "how are you", "how do you do", "how is it going", "how it going", "what up", "isn it",
        "don you think",
        "wie geht es dir", "wie geht es ihnen", "ça va", "comment ça va", "comment vas tu",
        "comment allez vous", "cómo estás", "cómo está", "qué tal", "come stai", "come va",
    }
)  # fmt: skip
_QUESTION = _words("what who where when why how was wer wo wann warum wie qui où quand quién dónde chi dove")
_VERB = _words("is are was were does did s ist sind war est sont était es son era è sono")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_CONTRACTED = re.compile(r"['’](?:re|m|s|ve|ll|d|t)$")
"""As in `you're` and `isn't`."""
_BOUNDARY = re.compile(r"(?:[,.!?:…。，！？]+(?=\s|$)|\n)\s*")
"""Where a sentence or part of one ends."""
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Scripts without spaces between words."""


def is_self_contained(message: str) -> bool:
    """Whether a message is clear without the messages before it."""
    words = _WORD.findall(message[:1000].lower())
    if len(words) > LONGEST:
        return True
    if len(_UNSPACED.findall(message)) > 2 * CONTENT_WORDS:
        return True
    content = [word for word in words if word not in _FUNCTION_WORDS and word not in _ANAPHORA]
    if content and all(word in _SMALL_TALK for word in content):
        return True
    if not _ANAPHORA.isdisjoint(words):
        return len(content) >= CONTENT_WORDS_BESIDE_ANAPHORA
    if len(content) >= CONTENT_WORDS:
        return True
    # As in `Where is Peru?`.
    return bool(content) and len(words) > 2 and words[0] in _QUESTION and words[1] in _VERB


def without_small_talk(message: str) -> str:
    """A message without greetings and thanks at its ends; one of nothing else as it is."""
    begin, end = 0, len(message)
    while (stop := _BOUNDARY.search(message, begin)) and _is_small_talk(message[begin : stop.end()]):
        begin = stop.end()
    tail = max(begin, end - LONGEST_SMALL_TALK)
    starts = [begin, *(stop.end() for stop in _BOUNDARY.finditer(message, tail))]
    for start in reversed(starts):
        if start < end and not _is_small_talk(message[start:end]):
            break
        end = start
    return message[begin:end].strip() or message


def _is_small_talk(piece: str) -> bool:
    """Whether a sentence, or part of one, is nothing but small talk."""
    if len(piece) > LONGEST_SMALL_TALK:
        return False
    words = [_CONTRACTED.sub("", word) for word in _WORD.findall(piece.lower())]
    if not words:
        return True
    greeting = max((n for n in range(2, 5) if " ".join(words[:n]) in _GREETINGS), default=0)
    if "?" in piece and not greeting:
        return False
    content = [word for word in words[greeting:] if word not in _FUNCTION_WORDS and word not in _ANAPHORA]
    return (greeting > 0 or bool(content)) and all(word in _PLEASANTRIES for word in content)
