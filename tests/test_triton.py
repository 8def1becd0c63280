"""The Triton implementations: interpreted anywhere, compiled for sm_90 without a GPU, and run where there is one."""

from __future__ import annotations

import json
import os
import re
import warnings

import pytest
import torch

from rbp_lab.errors import LabError
from rbp_lab.scoring import LMHead, choose, missing, score_tokens
from rbp_lab.scoring.reference import reference_logits, score_logits
from rbp_lab.scoring.triton_tiles import FUSED, MERGE_BLOCK, MERGE_WARPS, NOT_MEASURED, ROW_BLOCK, ROW_WARPS, fused_tile
from tests import forked
from tests.test_scoring import assert_matches_reference

pytest.importorskip("triton", reason="the Triton implementations need triton")
IMPLS = ("triton-chunked", "triton-fused")
# Products of 16-bit operands, and copies, in operations and bytes a second: measured on an H200, for the roofline.
H200_FLOPS, H200_BYTES = 790e12, 4.3e12


def output(script: str, **environment: str) -> str:
    """What a script prints in a process in which triton is not imported yet."""
    kept = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    return forked.output(script, environment=kept | environment)


def test_interpreted_kernels_pass_every_case():
    """All cases of tests/triton_cases.py, in one process: triton decides at its import whether it interprets."""
    cases = json.loads(output("from tests.triton_cases import main; main()", TRITON_INTERPRET="1"))["cases"]
    assert len(cases) > 30
    failed = {name: what for name, what in cases.items() if what}
    assert not failed, "\n".join(f"--- {name}\n{what}" for name, what in failed.items())


@pytest.mark.skipif(bool(os.environ.get("TRITON_INTERPRET")), reason="kernels are interpreted here")
@pytest.mark.parametrize("impl", IMPLS)
def test_a_machine_without_gpu_is_told_so(impl):
    with pytest.raises(LabError, match=f"the implementation '{impl}' of the scores runs on a GPU only$"):
        score_tokens(torch.zeros(1, 2), LMHead(torch.eye(2)), torch.zeros(1, dtype=torch.long), impl)


def test_scoring_imports_triton_only_when_asked():
    """Not even where it is installed: it takes a second, and is not for every platform."""
    code = (
        "import sys, torch, rbp_lab.scoring as s\n"
        "s.score_tokens(torch.zeros(1, 2), s.LMHead(torch.eye(2)), torch.zeros(1, dtype=torch.long))\n"
        "print('rbp_lab.scoring.triton_kernels' in sys.modules)\n"
    )
    assert output(code).strip() == "False"


def test_the_buffer_of_a_chunk_keeps_the_budget():
    from rbp_lab.scoring.triton_chunked import MOST_TOKENS, chunk_tokens

    for candidates in (300, 50277, 50304, 151936, 256000):
        for budget in (1 << 21, 64 << 20, 512 << 20):
            tokens = chunk_tokens(candidates, 4, budget)
            assert 1 <= tokens <= MOST_TOKENS
            assert tokens * candidates * 4 <= budget
    # rows long enough for the product's speed at the default budget, also with the largest vocabularies
    assert chunk_tokens(256000, 4) >= 448 and chunk_tokens(50304, 4) == MOST_TOKENS
    with pytest.raises(LabError, match="one token"):
        chunk_tokens(256000, 4, 1 << 19)


def test_the_table_of_tiles_says_where_each_comes_from():
    for bits, entries in FUSED.items():
        for _, _, tile in entries:
            assert tile.rows >= tile.tokens  # one tile holds all targets' logits
            assert tile.measured == NOT_MEASURED or re.match(r"\d{4}-\d\d-\d\d, .+", tile.measured)
        assert fused_tile(bits, 1 << 20, 1 << 24)  # every width and vocabulary has one


# Compilation for sm_90, without a GPU: what ptxas says of each kernel and tile that ships.
STEPS = {"bias", "scale", "cap"}
BRACKET = {"delta", "surely_out", "maybe_out", "surely_in", "maybe_in"}
INTEGERS = {"n", "candidates", "width", "splits", "tiles_per_split"}
INTEGERS |= {"hidden_n", "hidden_d", "weight_v", "weight_d", "logits_n"}
COUNTS = ("greater", "equal", "surely", "maybe")


def registers_and_spills(kernel, constants: dict, absent: set[str], dtypes: dict, warps: int, stages: int, capsys):
    """(registers a thread, bytes spilled) of a kernel compiled for sm_90 with some arguments absent (None)."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, constant, aligned = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        if name in constants or name in absent:
            signature[name], constant[i,] = "constexpr", constants.get(name)
            continue
        if name in INTEGERS:
            signature[name] = "i32"
        elif name in ("scale", "cap"):
            signature[name] = "fp32"
        elif name == "targets":
            signature[name] = "*i64"
        else:
            signature[name] = dtypes.get(name, "*i32" if name.startswith(COUNTS) else "*fp32")
        # as a launch finds them: pointers and rows on 16 bytes
        if signature[name].startswith("*") or name in ("hidden_n", "weight_v", "logits_n", "width"):
            aligned[i,] = [["tt.divisibility", 16]]
    options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": False}
    capsys.readouterr()
    triton.compile(ASTSource(kernel, signature, constant, aligned), target=GPUTarget("cuda", 90, 32), options=options)
    log = capsys.readouterr().out
    registers = int(re.search(r"Used (\d+) registers", log)[1])
    return registers, sum(int(spill) for spill in re.findall(r"(\d+) bytes spill", log))


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """Triton's compiler for NVIDIA with ptxas' log printed, and a cache of its own."""
    try:
        from triton.backends.nvidia.compiler import get_ptxas

        get_ptxas(90)
    except (ImportError, RuntimeError, TypeError) as error:
        pytest.skip(f"this triton brings no ptxas: {error}")
    if os.environ.get("TRITON_INTERPRET"):
        pytest.skip("kernels are interpreted here (TRITON_INTERPRET is set)")
    monkeypatch.setenv("TRITON_DUMP_PTXAS_LOG", "1")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


# name → (arguments left out, dtype of the operands, dtype the logits are rounded to)
VARIANTS = {
    "plain bf16": (STEPS | BRACKET, "bf16", "fp32"),
    "all bf16": (set(), "bf16", "fp32"),
    "model bf16": (BRACKET, "bf16", "bf16"),
    "plain fp32": (STEPS | BRACKET, "fp32", "fp32"),
    "all fp32": (set(), "fp32", "fp32"),
    "bracket bf16": (STEPS, "bf16", "fp32"),
    "bias bf16": (BRACKET | {"scale", "cap"}, "bf16", "fp32"),
    "plain fp16": (STEPS | BRACKET, "fp16", "fp32"),
    "model fp16": (BRACKET, "fp16", "fp16"),
    "mixed": (set(), "fp32", "fp32"),
}
# Compiling takes seconds: `make test` does it with everything switched on, `make test-slow` in all variants.
FUSED_CASES = [
    pytest.param(name, i, id=f"{name} tile {i}", marks=() if name.startswith("all") else pytest.mark.slow)
    for name, (_, operand, _) in VARIANTS.items()
    for i in range(len(FUSED[32 if operand == "fp32" else 16]))
]


@pytest.mark.parametrize("variant,index", FUSED_CASES)
def test_the_fused_kernel_compiles_for_sm_90_without_spills(variant, index, compiler, capsys):
    import triton.language as tl

    from rbp_lab.scoring.triton_kernels import fused_kernel

    absent, operand, rounding = VARIANTS[variant]
    tile = FUSED[32 if operand == "fp32" else 16][index][2]
    types = {"bf16": tl.bfloat16, "fp16": tl.float16, "fp32": tl.float32}
    constants = {"TOKENS": tile.tokens, "ROWS": tile.rows, "DEPTH": tile.depth, "hidden_d": 1, "weight_d": 1}
    constants |= {"OPERAND": types[operand], "ROUND": types[rounding]}
    stored = "*bf16" if variant == "mixed" else f"*{operand}"
    dtypes = {"hidden": f"*{operand}", "weight": stored, "bias": stored}
    registers, spills = registers_and_spills(fused_kernel, constants, absent, dtypes, tile.warps, tile.stages, capsys)
    with capsys.disabled():
        print(f"\nfused, {variant}, {tile.tokens}×{tile.rows}×{tile.depth}: {registers} registers, {spills} B spilled")
    assert spills == 0


@pytest.mark.parametrize(
    "absent,logits",
    [
        (set(), "*fp32"),
        pytest.param(STEPS | BRACKET, "*fp32", marks=pytest.mark.slow),
        pytest.param(STEPS | BRACKET, "*bf16", marks=pytest.mark.slow),
    ],
)
def test_the_reading_kernel_compiles_for_sm_90_without_spills(absent, logits, compiler, capsys):
    from rbp_lab.scoring.triton_kernels import row_kernel

    dtypes = {"logits": logits, "bias": "*bf16"}
    registers, spills = registers_and_spills(row_kernel, {"BLOCK": ROW_BLOCK}, absent, dtypes, ROW_WARPS, 3, capsys)
    with capsys.disabled():
        print(f"\nreading {logits}, {ROW_BLOCK} at a time: {registers} registers, {spills} B spilled")
    # two thirds of the threads an SM holds, so that reads are in flight while others compute
    assert spills == 0 and registers <= 96


@pytest.mark.parametrize("absent", [set(), pytest.param(BRACKET, marks=pytest.mark.slow)])
def test_the_merging_kernel_compiles_for_sm_90_without_spills(absent, compiler, capsys):
    from rbp_lab.scoring.triton_kernels import merge_kernel

    _, spills = registers_and_spills(merge_kernel, {"TOKENS": MERGE_BLOCK}, absent, {}, MERGE_WARPS, 3, capsys)
    assert spills == 0


# On a GPU: the same cases, real sizes, and time.
def gpu(test):
    """Marks a test as needing a CUDA device, and skips it where there is none."""
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")(test))


def gpu_case(tokens, vocab, width, dtype=torch.bfloat16, **head):
    """random_case made on the GPU: a large one takes minutes on a CPU."""
    g = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(tokens, width, generator=g, device="cuda").to(dtype)
    weight = (torch.randn(vocab, width, generator=g, device="cuda") / width**0.5 * 3).to(dtype)
    targets = torch.randint(0, head.get("num_candidates") or vocab, (tokens,), generator=g, device="cuda")
    return hidden, LMHead(weight, **head), targets


@gpu
def test_every_case_on_the_gpu():
    from tests.triton_cases import CASES, FAILURES

    failed = []
    for name, function in CASES.items():
        try:
            function("cuda")
        except FAILURES as error:
            failed.append(f"{name}: {error!r}")
    assert not failed, "\n".join(failed)


@gpu
@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    "vocab,width,dtype,options",
    [
        (50304, 128, torch.bfloat16, {}),
        (50304, 768, torch.bfloat16, {"num_candidates": 50277}),
        (50304, 1024, torch.float16, {"softcap": 30.0, "scale": 0.5}),
        (50304, 768, torch.float32, {}),
        (151936, 896, torch.bfloat16, {}),
    ],
    ids=str,
)
def test_real_sizes_match_the_reference(impl, vocab, width, dtype, options):
    hidden, head, targets = gpu_case(517, vocab, width, dtype, **options)
    scores = score_tokens(hidden, head, targets, impl, bracket=True)
    exact = score_logits(reference_logits(hidden, head), targets)
    assert torch.allclose(scores.nll, exact.nll, atol=5e-5, rtol=1e-5)
    assert torch.allclose(scores.entropy, exact.entropy, atol=5e-5, rtol=1e-5)
    for count in (scores.num_greater, exact.num_greater):
        assert (scores.surely_greater <= count).all() and (count <= scores.maybe_greater).all()
    # of so many candidates one may lie within a rounding of the target
    off = (scores.num_greater - exact.num_greater).abs()
    assert off.max() <= 3 and (off > 0).float().mean() < 0.1


@gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("width", [128, 768, 1000])
def test_a_targets_logit_has_the_bits_of_its_tile(dtype, width):
    """A head whose rows are all one row: each candidate of each tile must tie, bit for bit, with the target's logit."""
    hidden, head, targets = gpu_case(300, 50304, width, dtype, softcap=30.0, scale=0.7)
    same = LMHead(head.weight[:1].repeat(50304, 1), softcap=30.0, scale=0.7)
    scores = score_tokens(hidden, same, targets, "triton-fused")
    assert (scores.num_equal == 50303).all() and (scores.num_greater == 0).all()


@gpu
@pytest.mark.parametrize("impl", IMPLS)
def test_no_synchronisation_and_the_same_bits_each_time(impl):
    from rbp_lab.scoring.triton_chunked import score_triton_chunked
    from rbp_lab.scoring.triton_fused import score_triton_fused

    score = {"triton-chunked": score_triton_chunked, "triton-fused": score_triton_fused}[impl]
    case = gpu_case(5000, 50304, 256)
    with torch.inference_mode():
        first = score(*case)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                again = score(*case)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert not [warning for warning in seen if "synchroniz" in str(warning.message)]
    for name in ("nll", "num_greater", "num_equal", "entropy"):
        assert torch.equal(getattr(first, name), getattr(again, name))


@gpu
def test_float32_products_ignore_tf32():
    hidden, head, targets = gpu_case(400, 5000, 768, torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        for impl in IMPLS:
            assert_matches_reference(score_tokens(hidden, head, targets, impl), hidden, head, targets)
        assert torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


@gpu
@pytest.mark.slow
@pytest.mark.parametrize("vocab,width", [(50304, 128), (50304, 768), (50304, 2048), (151936, 896)])
def test_time_beside_the_torch_path_and_the_roofline(vocab, width, capsys):
    """Printed, not judged but for one thing: what a GPU takes by default is not slower than plain torch there."""
    tokens, rounds = 16384, 5
    case = gpu_case(tokens, vocab, width)
    times: dict[str, list[float]] = {"torch": [], "triton-chunked": [], "triton-fused": []}
    for turn in range(rounds + 1):
        for impl, taken in times.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            score_tokens(*case, impl)
            end.record()
            end.synchronize()
            if turn:  # the first compiles
                taken.append(start.elapsed_time(end) * 1e6 / tokens)
    product, once = 2e9 * vocab * width / H200_FLOPS, 2e9 * vocab * 4 / H200_BYTES
    with capsys.disabled():
        print(f"\nV {vocab}, D {width}, {torch.cuda.get_device_name()}, ns per token, best and median of {rounds}:")
        print(f"  an H200's roofline: product {product:.0f}, and logits written and read once {once:.0f}")
        for impl, taken in times.items():
            print(f"  {impl}: {min(taken):.0f}, {sorted(taken)[rounds // 2]:.0f}")
    assert min(times[choose("cuda", width)]) <= min(times["torch"])
    assert not missing("triton-chunked", "cuda")
