"""Instructions as written by NVIDIA's disassembler, decoded to the numbers that the executor runs.

NVIDIA documents the names of instructions, not their semantics. The semantics here were learnt from compiling small
kernels, and are verified by tests: every kernel must give exactly the results of its host build. An unknown
instruction, modifier or operand is an error when it is executed, never a guess.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

__all__ = ["KINDS", "MODIFIERS", "OPCODES", "SPECIAL_REGISTERS", "Decoded", "Operand", "decode"]

_MEMORY = "E U 64 128 U8 S8 U16 S16 32 CONSTANT STRONG WEAK GPU SYS CTA SM EF EL LU NA"
_ATOMIC = f"{_MEMORY} ADD OR AND XOR MIN MAX EXCH CAS POPC INC S32 U32"
_COMPARE = "LT LE GT GE EQ NE LTU LEU GTU GEU EQU NEU NUM NAN AND OR XOR EX U32 FTZ"
_FLOAT = "FTZ SAT RM RP RZ"
_INTEGER = "U8 S8 U16 S16 U32 S32 U64 S64"
# Each opcode with its known modifiers. Opcodes of the uniform datapath have the same names with the prefix U.
OPCODES = {
    name: frozenset(modifiers.split())
    for name, modifiers in {
        "UNKNOWN": "",
        "NOP": "",
        "YIELD": "",
        "MOV": "",
        "LDC": "64 128",
        "S2R": "",
        "CS2R": "32",
        "R2UR": "",
        "IADD3": "X",
        "VIADD": "",
        "IMAD": "MOV U32 IADD SHL WIDE HI X",
        "LEA": "HI X SX32",
        "SHF": "L R W U32 S32 U64 S64 HI",
        "LOP3": "LUT",
        "PLOP3": "LUT",
        "PRMT": "",
        "IMNMX": "U32",
        "VIMNMX": "U32",
        "VIADDMNMX": "U32",
        "SEL": "",
        "FSEL": "",
        "ISETP": _COMPARE,
        "FSETP": _COMPARE,
        "FMNMX": "NAN FTZ",
        "FMNMX3": "NAN FTZ",
        "FADD": _FLOAT,
        "FMUL": _FLOAT,
        "FFMA": _FLOAT,
        "MUFU": "RCP RSQ SQRT EX2 LG2",
        "FCHK": "",
        "F2I": f"{_INTEGER} FTZ NTZ TRUNC CEIL FLOOR",
        "FRND": "TRUNC CEIL FLOOR",
        "I2F": f"{_INTEGER} RP RM RZ",
        "I2FP": "F32 S32 U32 RP RM RZ",
        "F2FP": "PACK_AB F16 F32",
        "F2F": "F16 F32",
        "HADD2": "F32",
        "HFMA2": "MMA",
        "HMNMX2": "",
        "VHMNMX": "",
        "POPC": "",
        "IABS": "",
        "BREV": "",
        "FLO": "U32 SH",
        "VOTE": "ANY ALL",
        "REDUX": "OR AND XOR SUM MIN MAX S32",
        "SHFL": "IDX UP DOWN BFLY",
        "LDG": _MEMORY,
        "STG": _MEMORY,
        "LDS": _MEMORY,
        "STS": _MEMORY,
        "RED": _ATOMIC,
        "ATOMG": _ATOMIC,
        "ATOMS": _ATOMIC,
        "P2R": "",
        "R2P": "",
        "BMOV": "32 CLEAR",
        "BRA": "DIV U",
        "BRX": "",
        "CALL": "REL NOINC",
        "RET": "REL NODEC",
        "EXIT": "",
        "BSSY": "RECONVERGENT RELIABLE",
        "BREAK": "RELIABLE",
        "BSYNC": "RECONVERGENT RELIABLE",
        "WARPSYNC": "ALL COLLECTIVE",
        "ENDCOLLECTIVE": "",
        "BAR": "SYNC RED POPC OR AND DEFER_BLOCKING",
        "B2R": "RESULT",
        "MEMBAR": "SC ALL GPU SYS CTA VC",
        "ERRBAR": "",
        "CGAERRBAR": "",
        "CCTL": "IVALL",
        "DEPBAR": "",
    }.items()
}
# Modifiers that change neither a result nor how often an instruction is issued.
_NO_EFFECT = """
    E CONSTANT STRONG WEAK GPU SYS CTA SM EF EL LU NA MOV IADD SHL LUT REL NOINC NODEC SYNC DEFER_BLOCKING NTZ PACK_AB
    F16 F32 MMA RECONVERGENT RELIABLE COLLECTIVE SC VC IVALL ANY INC R U RESULT
"""
_WITHOUT_EFFECT = frozenset(_NO_EFFECT.split())
MODIFIERS = tuple(sorted(set().union(*OPCODES.values()) - _WITHOUT_EFFECT))
KINDS = (
    "NONE",
    "REGISTER",
    "UNIFORM",
    "IMMEDIATE",
    "CONSTANT",
    "PREDICATE",
    "UNIFORM_PREDICATE",
    "ADDRESS",
    "BARRIER",
    "SPECIAL",
    "ALL_PREDICATES",
)
SPECIAL_REGISTERS = (
    *(f"SR_{name}" for name in ("TID.X", "TID.Y", "TID.Z", "CTAID.X", "CTAID.Y", "CTAID.Z", "LANEID")),
    *(f"SR_{name}" for name in ("EQMASK", "LTMASK", "LEMASK", "GTMASK", "GEMASK", "CgaCtaId")),
    "SRZ",
)
_SYNONYMS = {"REDG": "RED", "UFLO": "FLO", "S2UR": "S2R", "VOTEU": "VOTE", "LDCU": "LDC", "BRXU": "BRX"}
# The generic address of an array in global memory is its global address. Any other address is outside of all arrays,
# which is an error.
_SYNONYMS |= {"LD": "LDG"}
_RZ, _URZ, _PT = 255, 63, 7
_NOTHING_WRITTEN = """
    NOP YIELD STG STS RED BRA BRX CALL RET EXIT BREAK BSYNC WARPSYNC ENDCOLLECTIVE BAR MEMBAR ERRBAR CGAERRBAR CCTL
    DEPBAR R2P
"""
_NO_DEST = frozenset(_NOTHING_WRITTEN.split())
# Opcodes whose immediates are written as decimals.
_DECIMAL = "FADD FMUL FFMA FSETP FMNMX FMNMX3 FSEL MUFU FCHK F2F F2FP F2I FRND HADD2"
_FLOATS = frozenset(_DECIMAL.split())
# Opcodes whose registers hold two halves each.
_PAIRS = {"HFMA2", "HMNMX2", "VHMNMX"}
_EACH_ITS_OWN = 2
_IS_PREDICATE = {"PREDICATE", "UNIFORM_PREDICATE"}
_REGISTER = re.compile(r"(U?)R(Z|\d+)((?:\.\w+)*)$")
_PREDICATE = re.compile(r"(!?)(U?)P(T|\d)$")
_CONSTANT = re.compile(r"c\[(0x[0-9a-f]+)\]\s*\[([^]]+)\]((?:\.\w+)*)$")


class _UnknownFormError(Exception):
    """The executor does not know this form of an instruction."""


@dataclass
class Operand:
    """One operand, with the fields of ``Operand`` in the executor."""

    kind: str = "NONE"
    reg: int = _RZ
    negative: bool = False
    absolute: bool = False
    inverted: bool = False
    part: int = 0
    value: int = 0
    bank: int = 0
    scale: int = 1
    wide: bool = False
    ureg: int = _URZ
    uwide: bool = False


@dataclass
class Decoded:
    """One instruction.

    Attributes:
        opcode: Key of :data:`OPCODES`.
        modifiers: Modifiers, from :data:`MODIFIERS`.
        guard: Predicate under which it is executed.
        dest: Register that it writes, if any.
        predicates: Predicates that it writes, two at most.
        sources: Operands that it reads, in the order of the text.
        label: Label that it jumps to, or empty.
        problem: Reason why it cannot be executed; empty if it can.
    """

    opcode: str
    modifiers: set[str]
    guard: Operand
    dest: Operand = field(default_factory=Operand)
    predicates: list[Operand] = field(default_factory=list)
    sources: list[Operand] = field(default_factory=list)
    label: str = ""
    problem: str = ""


def decode(text: str) -> Decoded:
    """Decode one instruction, such as ``@!P0 IADD3 R1, P1, R2.reuse, 0x10, RZ``."""
    match = re.match(r"(?:@(!?U?P\w)\s+)?([A-Z][A-Z0-9]*)((?:\.\w+)*)\s*(.*)$", text.strip())
    guard = Operand("PREDICATE", _PT)
    if match is None:
        return Decoded("UNKNOWN", set(), guard, problem=text)
    if match[1]:
        guard = _predicate(match[1]) or guard
    name = match[2]
    modifiers = set(match[3].split(".")) - {""}
    try:
        opcode = _opcode(name)
        instruction = Decoded(opcode, modifiers, guard)
        _fill(instruction, match[4])
        _check_conversion(name + match[3])
    except (_UnknownFormError, ValueError) as problem:
        return Decoded("UNKNOWN", set(), guard, problem=f"{text}: {problem}")
    return instruction


def _opcode(name: str) -> str:
    for candidate in (name, _SYNONYMS.get(name), name[1:] if name.startswith("U") else None):
        if candidate in OPCODES:
            return str(candidate)
    raise _UnknownFormError("this instruction")


def _check_conversion(name: str) -> None:
    if name.startswith("F2F.") and name != "F2F.F16.F32":
        raise _UnknownFormError("this conversion")


def _fill(it: Decoded, rest: str) -> None:
    rest = re.sub(r"\(\*.*\*\)", "", rest).replace(".reuse", "")
    if it.opcode in {"BRX", "RET"}:
        rest = rest.strip().replace(" ", ", ", 1)
    words = [word.strip() for word in rest.split(",") if word.strip()]
    if unknown := it.modifiers - OPCODES[it.opcode]:
        raise _UnknownFormError(f"the modifiers {', '.join(sorted(unknown))}")
    if it.opcode == "HADD2" and "F32" not in it.modifiers:
        raise _UnknownFormError("arithmetic of halves")
    if it.opcode == "HFMA2" and len(words) != 4:
        _pair_of_halves(it, words)
        return
    is_global = it.opcode in {"LDG", "STG", "RED", "ATOMG"} and "E" in it.modifiers
    it.modifiers -= _WITHOUT_EFFECT
    labels = [word for word in words if word.startswith("`(")]
    it.label = labels[0][2:-1] if labels else ""
    operands = [_operand(word, it.opcode in _FLOATS) for word in words if word not in labels]
    if it.opcode in _PAIRS:
        _let_halves_be_pairs(operands, words)
    for operand in operands:
        if operand.kind == "ADDRESS" and is_global:
            # Turing writes [R2] for the pair R2, R3 where later architectures write [R2.64].
            operand.wide, operand.uwide = "U32" not in rest, True
    _distribute(it, operands)
    _check(it)


def _distribute(it: Decoded, operands: list[Operand]) -> None:
    """Assign destinations before sources: predicates stand before or right after the register that is written."""
    if it.opcode == "VOTE":
        if operands[0].kind not in _IS_PREDICATE:
            it.dest = operands.pop(0)
        it.predicates, it.sources = operands[:1], operands[1:]
        return
    if it.opcode == "B2R":
        it.dest, it.predicates = operands[0], operands[1:]
        return
    if it.opcode in {"PLOP3", "ISETP", "FSETP"}:
        it.predicates, it.sources = operands[:2], operands[2:]
        return
    if it.opcode not in _NO_DEST:
        while operands and operands[0].kind in _IS_PREDICATE:
            it.predicates.append(operands.pop(0))
        if it.opcode != "FCHK":
            it.dest = operands.pop(0)
            while len(operands) > 1 and operands[0].kind in _IS_PREDICATE:
                it.predicates.append(operands.pop(0))
    it.sources = operands
    if it.opcode == "VIADD":
        it.sources.append(Operand("REGISTER"))


def _check(it: Decoded) -> None:
    if len(it.predicates) > 2 or len(it.sources) > 7:
        raise _UnknownFormError("so many operands")
    barrier = [(each.kind, each.value) for each in it.sources if each.kind != "PREDICATE"]
    if it.opcode == "BAR" and (barrier != [("IMMEDIATE", 0)] or len(it.sources) != 1 + ("RED" in it.modifiers)):
        raise _UnknownFormError("barriers other than that of the block")
    if it.opcode in {"HADD2", *_PAIRS} and any(
        each.kind not in {"REGISTER", "UNIFORM", "PREDICATE"} for each in it.sources
    ):
        raise _UnknownFormError("arithmetic of halves")
    if it.opcode not in {"I2F", "HADD2", "R2P", *_PAIRS} and any(each.part for each in it.sources):
        raise _UnknownFormError("a part of a register")
    if it.opcode == "BREAK" and [each.kind for each in it.sources][-1:] != ["BARRIER"]:
        raise _UnknownFormError("a break out of nothing")
    if it.opcode == "BRA" and "DIV" in it.modifiers and not it.sources:
        it.sources.append(Operand("IMMEDIATE", value=0xFFFFFFFF))  # Turing's form, which means all lanes


def _pair_of_halves(it: Decoded, words: list[str]) -> None:
    """Decode ``HFMA2.MMA R, -RZ, RZ, high, low``, a constant made on an idle unit; other forms are unknown."""
    dest = _operand(words[0], False)
    factors = [_operand(word, False) for word in words[1:3]]
    if any(factor.kind != "REGISTER" or factor.reg != _RZ for factor in factors) or len(words) != 5:
        raise _UnknownFormError("arithmetic of halves")
    halves = [struct.unpack("<H", struct.pack("<e", float(word)))[0] for word in words[3:]]
    it.opcode, it.modifiers, it.dest = "MOV", set(), dest
    it.sources = [Operand("IMMEDIATE", value=halves[0] << 16 | halves[1])]


def _let_halves_be_pairs(operands: list[Operand], words: list[str]) -> None:
    """Mark operands that are both halves of a register: ``R2`` is, ``R2.H0_H0`` is twice the lower half."""
    for operand, word in zip(operands, words, strict=True):
        if operand.kind in {"REGISTER", "UNIFORM"} and "." not in word:
            operand.part = _EACH_ITS_OWN


def _operand(word: str, is_float: bool) -> Operand:
    if word == "PR":
        return Operand("ALL_PREDICATES")
    if word in SPECIAL_REGISTERS:
        return Operand("SPECIAL", SPECIAL_REGISTERS.index(word))
    if re.match(r"B\d+$", word):
        return Operand("BARRIER", int(word[1:]))
    if (predicate := _predicate(word)) is not None:
        return predicate
    if word.startswith(("[", "desc")):
        return _address(word)
    return _value(word, is_float)


def _predicate(word: str) -> Operand | None:
    match = _PREDICATE.match(word)
    if match is None:
        return None
    reg = _PT if match[3] == "T" else int(match[3])
    return Operand("UNIFORM_PREDICATE" if match[2] else "PREDICATE", reg, inverted=bool(match[1]))


def _value(word: str, is_float: bool) -> Operand:
    bare, negative, absolute, inverted = word, False, False, False
    if not re.match(r"-(0x|\d|INF|QNAN|SNAN)", bare) and bare.startswith("-"):
        bare, negative = bare[1:], True
    if bare.startswith("~"):
        bare, inverted = bare[1:], True
    if match := re.match(r"\|(.*)\|((?:\.\w+)*)$", bare):
        bare, absolute = match[1] + match[2], True
    operand = _register(bare) or _constant(bare) or _immediate(bare, is_float)
    operand.negative, operand.absolute, operand.inverted = negative, absolute, inverted
    return operand


def _register(word: str) -> Operand | None:
    match = _REGISTER.match(word)
    if match is None:
        return None
    zero = _URZ if match[1] else _RZ
    operand = Operand("UNIFORM" if match[1] else "REGISTER", zero if match[2] == "Z" else int(match[2]))
    for suffix in filter(None, match[3].split(".")):
        parts = {"H0_H0": 0, "H1_H1": 1, "H0": 0, "H1": 1, "B0": 0, "B1": 1, "B2": 2, "B3": 3}
        if suffix not in parts:
            raise _UnknownFormError(f"the register {word}")
        operand.part = parts[suffix]
    return operand


def _constant(word: str) -> Operand | None:
    match = _CONSTANT.match(word)
    if match is None:
        return None
    if match[3]:
        raise _UnknownFormError(f"the constant {word}")
    operand = Operand("CONSTANT", bank=int(match[1], 16))
    _add_terms(operand, match[2])
    return operand


def _immediate(word: str, is_float: bool) -> Operand:
    if word.startswith(("0x", "-0x")):
        return Operand("IMMEDIATE", value=int(word, 16) & 0xFFFFFFFF)
    if not is_float:
        return Operand("IMMEDIATE", value=int(word) & 0xFFFFFFFF)
    specials = {"+INF": 0x7F800000, "-INF": 0xFF800000, "+QNAN": 0x7FFFFFFF, "-QNAN": 0xFFFFFFFF, "INF": 0x7F800000}
    if word in specials:
        return Operand("IMMEDIATE", value=specials[word])
    return Operand("IMMEDIATE", value=struct.unpack("<I", struct.pack("<f", float(word)))[0])


def _address(word: str) -> Operand:
    match = re.match(r"(?:desc\[UR\d+\])?\[([^]]*)\]$", word)
    if match is None:
        raise _UnknownFormError(f"the address {word}")
    operand = Operand("ADDRESS")
    _add_terms(operand, match[1])
    return operand


def _add_terms(operand: Operand, terms: str) -> None:
    """Add the terms of an address: ``R2.64+UR4+0x10``, ``R3.X4+-0x8``."""
    for term in terms.replace(" ", "").split("+"):
        if match := re.match(r"(U?)R(Z|\d+)((?:\.\w+)*)$", term):
            suffixes = set(match[3].split(".")) - {""}
            if match[1]:
                operand.ureg = _URZ if match[2] == "Z" else int(match[2])
                operand.uwide = operand.wide or "64" in suffixes
            else:
                operand.reg = _RZ if match[2] == "Z" else int(match[2])
                operand.wide = "64" in suffixes
                operand.scale = next((int(each[1:]) for each in suffixes if each.startswith("X")), 1)
            if suffixes - {"64", "U32", "X4", "X8", "X16"}:
                raise _UnknownFormError(f"the address {terms}")
        elif term:
            operand.value = int(term, 16) & 0xFFFFFFFF
