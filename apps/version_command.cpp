// tandem version and tandem devices: what was built, and what it runs on.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "options.h"
#include "tandem/core/cuda.h"
#include "tandem/core/threads.h"
#include "tandem/core/version.h"
#include "terminal.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

// "13.0", what it was built with, and whether there is a GPU.
std::string cuda_line(const std::string& fault) {
  const std::string toolkit = cuda::devices().toolkit;
  return toolkit.empty() ? "off" : fault.empty() ? toolkit : toolkit + ", no GPU here";
}

int print_version(const OutputOptions& output) {
  const std::string fault = cuda_fault();
  if (output.json) {
    print_json({{"version", version()},
                {"commit", commit()},
                {"compiler", compiler()},
                {"cpu_path", cpu_path()},
                {"blas", blas_description()},
                {"cuda", fault.empty()}});
  } else {
    print(fmt::format("tandem {}\ncommit    {}\ncompiler  {}\nCPU path  {}\nBLAS      {}\nCUDA      {}\n", version(),
                      commit(), compiler(), cpu_path(), blas_description(), cuda_line(fault)));
  }
  return kOk;
}

int print_devices(const OutputOptions& output) {
  const std::string fault = cuda_fault();
  const cuda::Devices& cuda = cuda::devices();
  if (output.json) {
    Json all = {{{"device", "cpu"},
                 {"available", true},
                 {"cores", available_cores()},
                 {"cpu_path", cpu_path()},
                 {"blas", blas_description()}}};
    if (!fault.empty()) all.push_back({{"device", "cuda"}, {"available", false}, {"reason", fault}});
    for (size_t i = 0; i < cuda.all.size(); ++i) {
      const cuda::DeviceInfo& gpu = cuda.all[i];
      all.push_back({{"device", fmt::format("cuda:{}", i)},
                     {"available", true},
                     {"name", gpu.name},
                     {"compute_capability", fmt::format("{}.{}", gpu.major, gpu.minor)},
                     {"multiprocessors", gpu.multiprocessors},
                     {"bytes", gpu.bytes},
                     {"driver", cuda.driver},
                     {"toolkit", cuda.toolkit}});
    }
    print_json({{"devices", all}});
    return kOk;
  }
  std::string text =
      fmt::format("cpu    {} cores, {} kernels, {}\n", available_cores(), cpu_path(), blas_description());
  if (!fault.empty()) text += fmt::format("cuda   {}\n", fault);
  for (size_t i = 0; i < cuda.all.size(); ++i) {
    const cuda::DeviceInfo& gpu = cuda.all[i];
    text += fmt::format("cuda:{} {}, {:.1f} GiB, compute capability {}.{}\n", i, gpu.name,
                        static_cast<double>(gpu.bytes) / (1 << 30), gpu.major, gpu.minor);
  }
  print(text);
  return kOk;
}

void add_report(CLI::App& program, Action& action, const char* name, const char* help,
                int (*report)(const OutputOptions&)) {
  auto output = std::make_shared<OutputOptions>();
  CLI::App* command = program.add_subcommand(name, help);
  command->footer(fmt::format("  tandem {0}\n  tandem {0} --json\n", name));
  add_output_options(*command, *output);
  command->callback([=, &action] { action = [=] { return report(*output); }; });
}

}  // namespace

void add_version(CLI::App& program, Action& action) {
  add_report(program, action, "version", "Print version, commit, compiler, CPU path, BLAS and CUDA.", print_version);
}

void add_devices(CLI::App& program, Action& action) {
  add_report(program, action, "devices", "List the devices that --device takes here.", print_devices);
}

}  // namespace tandem
