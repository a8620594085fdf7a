// The program: reads the command line, runs one subcommand, turns exceptions into a sentence and an exit code.
#include <signal.h>

#include <CLI/CLI.hpp>

#include "commands.h"
#include "exit_code.h"
#include "help.h"
#include "tandem/core/version.h"
#include "terminal.h"

namespace tandem {
namespace {

void add_commands(CLI::App& program, Action& action) {
  program.name("tandem");
  program.set_help_flag("--help", "everything about this command");
  program.set_help_all_flag("-h", "examples and usage");
  program.set_version_flag("--version", version(), "the version");
  program.footer(
      "  tandem train                          w2 with batch norm, 3 epochs\n"
      "  tandem compare --preset quick         with and without batch norm, 5 seeds\n"
      "  tandem eval runs/NAME                 test accuracy and confusion matrix\n"
      "  tandem data fetch mnist               download MNIST\n");
  program.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);  // of a flag given twice
  program.require_subcommand(0, 1);
  program.allow_extras();  // so that refuse_unknown() can name the nearest word; subcommands inherit it
  for (auto* add : {add_train, add_compare, add_claims, add_eval, add_predict, add_inspect, add_data, add_bench,
                    add_devices, add_version}) {
    add(program, action);
  }
}

int run_command_line(int argc, char** argv) {
  CLI::App program("Trains paired networks, identical but for batch norm, on MNIST.");
  Action action;
  add_commands(program, action);
  try {
    program.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    print(help_text(chosen(program), false));
    return kOk;
  } catch (const CLI::CallForAllHelp&) {
    print(help_text(chosen(program), true));
    return kOk;
  } catch (const CLI::CallForVersion&) {
    print(std::string("tandem ") + version() + "\n");
    return kOk;
  } catch (const CLI::ParseError& e) {
    throw UsageError(usage_error(program, e));
  }
  refuse_unknown(program);
  return action();
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  for (int error_of_write : {SIGXFSZ, SIGPIPE}) ::signal(error_of_write, SIG_IGN);  // which has a sentence
  tandem::set_warning_handler(tandem::warning);
  try {
    return tandem::run_command_line(argc, argv);
  } catch (const std::bad_alloc&) {
    tandem::error("out of memory; try a smaller --batch-size or model");
    return tandem::kMemory;
  } catch (const std::exception& e) {
    tandem::error(e.what());
    return tandem::exit_code(e);
  }
}
