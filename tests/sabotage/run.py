#!/usr/bin/env python3
"""Plants one defect at a time in a copy of the kernels and requires the tests to fail.

    tests/sabotage/run.py --into build/sabotage [NAME ...]

A suite that stays green with a wrong kernel proves nothing. The defects are those of the table in
docs/accuracy.md. The product code carries no switches for them: each is a replacement in a copy of
the tree, and one that no longer applies is an error, so the list cannot rot unseen.
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCORES = 'src/kernels/attention_scores.body.h'
VALUES = 'src/kernels/attention_values.body.h'
ROW_VALUES = 'src/kernels/attention_row_values.body.h'
CALL = 'src/attention/tile_of_call.h'
BACKWARD_PLANS = 'src/attention/backward/backward_plans.cc'
BACKWARD_TILES = 'src/attention/backward/backward_tiles.h'
HEAD_ROWS = 'src/kernels/head_rows.body.h'

# name: (file, text that must stand there exactly once, what replaces it)
DEFECTS = {
    'last_key_dropped': (
        CALL, 'static_cast<size_t>(band.end)}', 'static_cast<size_t>(band.end - (band.end > 1))}'),
    'causal_off_by_one': (
        CALL, 'band.last + at.row,', 'band.last + at.row + 1,'),
    'window_off_by_one': (
        CALL, 'band.first + at.row,', 'band.first + at.row + 1,'),
    'sequence_reads_the_keys_of_the_first': (
        CALL, 'call.key, batch, head, of.k_begin', 'call.key, batch, head, 0'),
    'page_before_the_right_one': (
        'src/kernels/attention_tile.body.h', 'in.pages.pages[page - in.pages.first_page]',
        'in.pages.pages[page > in.pages.first_page ? page - in.pages.first_page - 1 : 0]'),
    'window_forgets_a_page_too_early': (
        'src/attention/cache/page_pool.cc', 'first_seen_from(of.length) / page_len_',
        '(first_seen_from(of.length) + page_len_ - 1) / page_len_'),
    'group_of_another_head': (
        'src/attention/group_plan.cc', 'task.head / parts_ * group + first',
        'task.head / parts_ * group'),
    'chunk_taken_twice': (
        'src/kernels/attention_row.body.h', 'take_rows(tile, sums_of(tile.in, chunk))',
        'take_rows(tile, sums_of(tile.in, chunk - (chunk > 1)))'),
    'waiting_row_left_out': (
        ROW_VALUES, 'if (!row.waits) continue;', 'if (row.waits || !row.waits) continue;'),
    'scale_wrong_by_a_thousandth': (
        CALL, 'tile.scale = static_cast<T>(call.scale);',
        'tile.scale = static_cast<T>(call.scale * 1.001);'),
    'last_dimension_skipped': (
        SCORES, 'for (size_t d = lanes.dims; d > 0;', 'for (size_t d = lanes.dims; d > 1;'),
    'rescale_forgotten': (
        SCORES, 'store(out, load(out) * factor);', 'store(out, load(out));'),
    'exp_wrong_by_1e-4': (
        'src/simd/exp2.inc.h', '0.693151312F', '0.693351312F'),
    'probs_rounded_to_bf16': (
        SCORES, 'store(probs + (j * NV + i) * kLanes<T>, p);',
        'if constexpr (sizeof(T) == 4) {'
        ' using Bits = decltype(p < p);'
        ' p = bit_cast<Vec<T>>(bit_cast<Bits>(p) & static_cast<int32_t>(0xffff0000)); }\n'
        'store(probs + (j * NV + i) * kLanes<T>, p);'),
    'masked_values_multiplied': (
        VALUES, '(is_hidden(p[i]) ? acc[d][i] : next)', 'next'),
    'chunk_folded_unscaled': (
        VALUES, 'fma(chunk, fold.add, load(total) * fold.keep)', 'fma(chunk, fold.add, load(total))'),
    'mask_of_another_head': (
        CALL, 'at.head * s.head', '0 * s.head'),
    'average_not_divided': (
        'src/kernels/attention_store.body.h',
        'splat(static_cast<T>(heads.count))', 'splat(T{1})'),
    'average_begins_with_what_was_there': (
        'src/kernels/attention_average.body.h', 'heads.index == 1 ? weight',
        'heads.index == 0 ? weight'),
    'kept_masks_of_the_tile_before': (
        'src/kernels/attention_granule.body.h', 'if (heads.first()) seen =',
        'if (tile.in.band.last > static_cast<ptrdiff_t>(tile.in.kv_len) && heads.first()) seen ='),
    'dropout_not_made_up_for': (
        'src/kernels/attention_store.body.h', 'splat(in.kept_scale) /', 'splat(T{1}) /'),
    'dropout_of_another_head': (
        CALL, 'call.num_heads() + at.head;', 'call.num_heads();'),
    'dropout_moves_with_the_tile': (
        CALL, 'tile->dropout.first_query = static_cast<uint32_t>(at.row);',
        'tile->dropout.first_query = 0;'),
    'dropped_values_multiplied': (
        'src/kernels/attention_forward.body.h', 'if (drops || granule.hides_keys())',
        'if (granule.hides_keys())'),
    'few_rows_rescale_forgotten': (
        ROW_VALUES, 'store(out + d, load(out + d) * factor)', 'store(out + d, load(out + d))'),
    'few_rows_hidden_values_multiplied': (
        ROW_VALUES, 'seen.count += row.bias[j] != kMasked<T>', 'seen.count += 1'),
    'few_rows_one_maximum_for_all': (
        ROW_VALUES, 'if (!(highest > row.limit[0])) continue;', 'if (granule > 0) continue;'),
    'softcap_of_the_wrong_size': (
        'src/kernels/attention_softcap.body.h', 'store(scores + at, t * cap)',
        'store(scores + at, t * cap * inverse)'),
    'sink_without_its_weight': (
        'src/kernels/attention_forward.body.h', '= sink == kMasked<T> ? T{0} : T{1};',
        '= T{0} * sink;'),
    'few_rows_without_sink': (
        'src/kernels/attention_row.body.h', 'if (in.sinks != nullptr) fold_row_sink',
        'if (in.sinks == in.lse) fold_row_sink'),
    'alibi_one_key_off': (
        'src/kernels/attention_granule.body.h', 'in.masks->position - first;',
        'in.masks->position - first + 1;'),
    'segments_of_neighbouring_rows': (
        CALL.replace('.h', '.cc'), 'tile.row_ids = element(rows, of.q_begin + at.row);',
        'tile.row_ids = element(rows, of.q_begin + at.row - (at.row > 0));'),
    'slopes_of_the_first_item': (
        CALL.replace('.h', '.cc'), 'alibi_slope(mask, at.sequence, at.head)',
        'alibi_slope(mask, 0 * at.sequence, at.head)'),
    'bottom_right_forgets_key_lengths': (
        'src/attention/sequences.cc', 'mask.offset().of(of.q_len, of.valid_keys)',
        'mask.offset().of(of.q_len, of.kv_len)'),
    'mask_of_the_first_sequence': (
        CALL, 'of.k_begin * s.key;', '0 * s.key;'),
    'function_sees_the_first_sequence': (
        'src/attention/score_mod.cc', '.batch = call.first_sequence + sequence,',
        '.batch = call.first_sequence + 0 * sequence,'),
    'function_counts_from_the_tile': (
        CALL, 'call.first_position(at.sequence) + at.row)', 'call.first_position(at.sequence))'),
    'hidden_by_a_function_and_multiplied': (
        'src/kernels/attention_score_mod.body.h', 'granule->has_bias = granule->has_hidden = true;',
        'granule->has_bias = true;'),
    'backward_softcap_without_slope': (
        'src/kernels/attention_backward_scores.body.h',
        'if (in.softcap > 0) d_s *= load', 'if (in.softcap > 1e30) d_s *= load'),
    'backward_function_without_derivative': (
        'src/kernels/attention_backward_scores.body.h',
        'granule.mod->differentiate(*granule.mod, scores, d_scores);',
        'if (scores.rows == 0) granule.mod->differentiate(*granule.mod, scores, d_scores);'),
    'backward_sinks_of_one_head': (
        'src/attention/backward/backward_tiles.cc', 'at.head = head;', 'at.head = 0 * head;'),
    'projection_without_bias': (
        'src/kernels/gemm.body.h', 'acc[j][i] += load(block.bias',
        'acc[j][i] += 0 * load(block.bias'),
    'columns_of_the_neighbouring_head': (
        'src/kernels/gemm.h', '<ptrdiff_t>(i / inner) * outer',
        '<ptrdiff_t>(i / inner / 2 * 2) * outer'),
    'backward_rest_of_lse_dropped': (
        'src/kernels/attention_backward_scores.body.h', '(s - b.lse[i] - b.lse_rest[i])',
        '(s - b.lse[i])'),
    'backward_delta_dropped': (
        'src/kernels/attention_backward_scores.body.h', '(d_p - b.delta[i])', 'd_p'),
    'backward_chunks_summed_in_another_order': (
        BACKWARD_PLANS, 'for (int64_t c = 1; c < tiles.num_chunks(); ++c)',
        'for (int64_t c = tiles.num_chunks() - 1; c > 0; --c)'),
    'backward_head_of_the_group_skipped': (
        BACKWARD_TILES, 'head < (kv_head + 1) * group;',
        'head + (group > 1) < (kv_head + 1) * group;'),
    'backward_last_row_of_a_window_skipped': (
        'src/kernels/attention_backward.body.h', '<ptrdiff_t>(key) + kGranule - band.first',
        '<ptrdiff_t>(key) + kGranule - 1 - band.first'),
    'backward_hidden_rows_multiplied': (
        'src/kernels/attention_backward_rows.body.h', '(is_hidden(f) ? acc[j][i] : next)', 'next'),
    'rotation_the_other_way': (
        HEAD_ROWS, 'fma(b, cosine, a * sine)', 'fma(b, cosine, -(a * sine))'),
    'rotation_not_turned_back': (
        'src/module/heads/head_transform.cc', 'at, Turn::kBack)', 'at, Turn::kForward)'),
    'norm_forgets_its_epsilon': (
        HEAD_ROWS, 'std::sqrt(mean + rows.epsilon)', 'std::sqrt(mean)'),
    'norm_gradient_along_x_kept': (
        HEAD_ROWS, 'splat(-mean)', 'splat(0 * mean)'),
    'unseen_rows_pulled_back': (
        HEAD_ROWS, 'if (all_zero(d, rows.head_dim)) continue;', ''),
}
PROGRAMS = {'projection_without_bias': 'linear_test',
            'columns_of_the_neighbouring_head': 'linear_test',
            'rotation_the_other_way': 'head_rows_test',
            'rotation_not_turned_back': 'module_gradient_test',
            'norm_forgets_its_epsilon': 'head_rows_test',
            'norm_gradient_along_x_kept': 'head_rows_test',
            'unseen_rows_pulled_back': 'head_rows_test',
            'page_before_the_right_one': 'kv_cache_test',
            'window_forgets_a_page_too_early': 'kv_cache_test',
            'group_of_another_head': 'kv_cache_test',
            'chunk_taken_twice': 'kv_cache_test'}


def programs_of(defect):
    """The test programs of which one must notice it."""
    if defect in PROGRAMS:
        return [PROGRAMS[defect]]
    own = 'attention_backward_test' if defect.startswith('backward_') else 'attention_test'
    return [own, 'attention_random_test']


def planted(defect):
    """The file of a defect, and its text with the defect in it."""
    path, old, new = DEFECTS[defect]
    text = (ROOT / path).read_text()
    if text.count(old) != 1:
        sys.exit(f'sabotage: {defect}: {path} has its text {text.count(old)} times; need exactly 1')
    return path, text.replace(old, new)


def tests_fail(tree, build, name):
    """Builds a program of tests; True if they notice, False if they pass."""
    subprocess.run(['cmake', '--build', build, '--target', name], check=True,
                   stdout=subprocess.DEVNULL)
    program = next(path for path in build.rglob(name) if path.is_file())
    done = subprocess.run([program], cwd=tree, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL)
    return done.returncode == 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--into', type=pathlib.Path, help='folder for copy and build')
    parser.add_argument('--check', action='store_true',
                        help='only whether each defect can still be planted; builds nothing')
    parser.add_argument('names', nargs='*', metavar='NAME', help=', '.join(DEFECTS))
    arguments = parser.parse_args()
    names = arguments.names or list(DEFECTS)
    if arguments.check:
        return print(f'{len([planted(name) for name in names])} defects can be planted')
    if arguments.into is None:
        parser.error('--into FOLDER is needed')
    into = arguments.into.resolve()
    tree, build = into / 'tree', into / 'build'
    shutil.rmtree(tree, ignore_errors=True)
    # Copied files are new files: objects of an earlier run must not count as up to date.
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns('build', '.git'),
                    copy_function=shutil.copyfile)
    subprocess.run(['cmake', '-S', tree, '-B', build, '-G', 'Ninja', '-DPOLYHEAD_COMMAND=OFF'],
                   check=True, stdout=subprocess.DEVNULL)
    if any(tests_fail(tree, build, program)
           for program in {program for name in names for program in programs_of(name)}):
        sys.exit('sabotage: the tests fail without any defect')
    missed = []
    for name in names:
        start = time.monotonic()
        path, text = planted(name)
        (tree / path).write_text(text)
        noticed = any(tests_fail(tree, build, program) for program in programs_of(name))
        shutil.copyfile(ROOT / path, tree / path)  # its new date has it built again
        missed += [] if noticed else [name]
        verdict = 'noticed' if noticed else 'MISSED'
        print(f'{name:40} {verdict:8} {time.monotonic() - start:5.0f} s', flush=True)
    print(f'{len(names) - len(missed)} of {len(names)} defects noticed')
    return bool(missed)


if __name__ == '__main__':
    sys.exit(main())
