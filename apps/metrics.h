// The record of a training run, in a run directory: metrics.jsonl (one JSON object a line), metrics.csv (the same
// columns) and a TensorBoard event file. Every record is written when it is made, so a killed run keeps them.
#pragma once

#include <string>

#include "append_file.h"
#include "clock.h"
#include "tensorboard.h"
#include "trainer.h"

namespace tandem {

struct Metric {
  int64_t step = 0;
  double epoch = 0;
  std::string split;  // "train", "validation", "test"
  double loss = 0, accuracy = 0, lr = 0;
  double time = 0;  // seconds since the run began
};
// A loss that is not finite is null, in CSV nothing.
std::string json_line(const Metric& metric);
std::string csv_line(const Metric& metric);
extern const char* const kCsvHeader;

class MetricsLog {
 public:
  // Opens the three files in `folder`. Training steps are averaged over `every` of them. Throws IoError.
  MetricsLog(const std::string& folder, int64_t every);

  void step(const StepRecord& record);
  void validation(const ValidationRecord& record);
  void test(const TrainResult& result, const Evaluation& test);
  void flush();  // writes the steps since the last record

 private:
  void write(const Metric& metric);

  const Clock::time_point start_ = Clock::now();
  const double wall_start_;  // seconds since 1970
  const int64_t every_;
  AppendFile json_, csv_;
  EventFile events_;
  StepRecord last_;  // of the steps since the last record: the sums of their losses and accuracies
  int64_t pending_ = 0;
  double lr_ = 0;
};

}  // namespace tandem
