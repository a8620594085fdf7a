// tandem data fetch | verify
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "exit_code.h"
#include "fetch.h"
#include "options.h"
#include "tandem/data/mnist.h"
#include "terminal.h"

namespace tandem {
namespace {

struct Options {
  OutputOptions output;
  std::string name;
  FetchOptions fetch;  // of which verify uses the folder
};

void print_result(const Options& o, const std::string& dir, const std::string& lines) {
  if (o.output.json) {
    print_json({{"dataset", o.name}, {"folder", dir}, {"verified", true}});
  } else {
    print(lines);
  }
}

int fetch(const Options& o) {
  const std::string dir = fetch_mnist(o.name, o.fetch);
  print_result(o, dir, fmt::format("{}: complete and verified in {}\n", o.name, dir));
  return kOk;
}

int verify(const Options& o) {
  const std::string lines = verify_mnist(o.name, o.fetch.dir);
  print_result(o, *find_mnist(o.name, o.fetch.dir), lines);
  return kOk;
}

CLI::App* add(CLI::App& data, const char* verb, const char* help, Options& o, const char* data_help) {
  CLI::App* command = data.add_subcommand(verb, help);
  add_choice(*command, "NAME", o.name, {"mnist", "fashion-mnist"}, "the data set")->required();
  add_text(*command, "--data", o.fetch.dir, "DIR", data_help);
  add_output_options(*command, o.output);
  return command;
}

}  // namespace

void add_data(CLI::App& program, Action& action) {
  CLI::App* data = program.add_subcommand("data", "Download or check MNIST and Fashion-MNIST.");
  data->footer(
      "  tandem data fetch mnist\n"
      "  tandem data verify mnist --data ~/mnist\n");
  data->require_subcommand(0, 1);

  auto o = std::make_shared<Options>();
  CLI::App* command =
      add(*data, "fetch", "Download what is missing of a data set, checked and whole (never if TANDEM_OFFLINE=1).", *o,
          "the folder that gets the files (default: the cache, where train looks)");
  command->footer(
      "  tandem data fetch mnist\n"
      "  tandem data fetch fashion-mnist --data ~/fashion\n");
  command->add_option("--mirror", o->fetch.mirrors, "an address with the four files; repeatable (default: public ones)")
      ->type_name("URL")
      ->allow_extra_args(false);
  add_number(*command, "--connect-timeout", o->fetch.connect_seconds, {.low = 0, .above = true},
             "seconds for connecting, all mirrors together");
  command->add_flag("--unless-failed-lately", o->fetch.unless_failed_lately,
                    "do not try if a download failed within the last day");
  command->callback([=, &action] { action = [o] { return fetch(*o); }; });

  auto v = std::make_shared<Options>();
  command = add(*data, "verify", "Compare the files with the published checksums.", *v,
                "the folder with the files, or with a folder of that name (default: $TANDEM_DATA, the cache)");
  command->footer("  tandem data verify mnist\n");
  command->callback([=, &action] { action = [v] { return verify(*v); }; });
}

}  // namespace tandem
