// SPDX-License-Identifier: MIT
#include "tweedie/cli/program.h"

int main(int argc, char** argv) { return tweedie::cli::run(argc, argv); }
