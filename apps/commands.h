// The subcommands. Each function adds one to the program: its flags, its help, and what runs when it is chosen.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace tandem {

// What the chosen subcommand does once the whole command line was read and checked; returns the exit code and
// throws what exit_code.h maps to one. A command sets it in its CLI callback: command->callback([=, &action] {
// action = [settings] { return train_command(*settings); }; }).
using Action = std::function<int()>;

void add_train(CLI::App& program, Action& action);
void add_eval(CLI::App& program, Action& action);
void add_predict(CLI::App& program, Action& action);
void add_compare(CLI::App& program, Action& action);
void add_claims(CLI::App& program, Action& action);
void add_data(CLI::App& program, Action& action);
void add_inspect(CLI::App& program, Action& action);
void add_devices(CLI::App& program, Action& action);
void add_bench(CLI::App& program, Action& action);
void add_version(CLI::App& program, Action& action);

}  // namespace tandem
