"""Kinds of task of reasoning-gym's families."""

_BY_KIND = {
    "mathematics": "advanced_geometry aiw base_conversion bitwise_arithmetic chain_sum "
    "complex_arithmetic count_bits countdown cryptarithm decimal_arithmetic decimal_chain_sum dice "
    "fraction_simplification gcd "
    "gsm_symbolic intermediate_integration lcm leg_counting number_filtering number_format "
    "number_sequence number_sorting polynomial_equations power_function prime_factorization "
    "simple_integration time_intervals",
    "code": "ab bf binary_alternation manipulate_matrix pool_matrix rotate_matrix string_insertion "
    "string_manipulation",
    "language": "caesar_cipher emoji_mystery group_anagrams letter_counting letter_jumble "
    "palindrome_generation sentence_reordering word_ladder word_sequence_reversal word_sorting",
    "logic": "arc_1d course_schedule family_relationships futoshiki game_of_life game_of_life_halting "
    "graph_color knight_swap knights_knaves largest_island mahjong_puzzle mini_sudoku modulo_grid n_queens "
    "needle_haystack propositional_logic quantum_lock rearc rectangle_count rotten_oranges rubiks_cube "
    "rush_hour self_reference shortest_path string_splitting string_synthesis sudoku syllogism "
    "tower_of_hanoi tsumego zebra_puzzles",
}
FAMILIES = {family: kind for kind, families in _BY_KIND.items() for family in families.split()}
"""Family → kind."""
