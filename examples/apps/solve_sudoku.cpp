// Solves a Sudoku with a model that trm export has written, without Python.
//
//     ./solve_sudoku sudoku-4x4.mlxfn 1...............
//
// docs/apps.md says how to build it and what the function takes and returns.

#include <cstdint>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include <mlx/mlx.h>

namespace mx = mlx::core;

constexpr float kHaltThreshold = 0.99f;  // the solver of trm_mlx stops here
constexpr int kMaxSteps = 16;

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: solve_sudoku MODEL.mlxfn PUZZLE, with . for a blank\n";
    return 2;
  }
  try {
    std::string puzzle = argv[2];
    std::vector<int32_t> tokens;  // 1 is a blank, 2 the digit 1, and so on; 0 is padding
    for (char cell : puzzle) {
      tokens.push_back(cell == '.' ? 1 : cell - '0' + 1);
    }
    mx::array inputs(tokens.data(), {1, static_cast<int>(tokens.size())}, mx::int32);

    auto step = mx::import_function(argv[1]);
    auto out = step({{"inputs", inputs}});
    int steps = 1;
    while (out[1].item<float>() < kHaltThreshold && steps < kMaxSteps) {
      out = step({{"inputs", inputs}, {"z_H", out[2]}, {"z_L", out[3]}});
      mx::eval(out);
      ++steps;
    }

    auto answers = mx::contiguous(out[0]);
    mx::eval(answers);
    for (size_t cell = 0; cell < tokens.size(); ++cell) {
      std::cout << answers.data<int32_t>()[cell] - 1;
    }
    std::cout << "\n" << steps << " steps, halting probability " << out[1].item<float>() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
