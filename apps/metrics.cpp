#include "metrics.h"

#include <fmt/format.h>

#include <cmath>

namespace tandem {

const char* const kCsvHeader = "step,epoch,split,loss,accuracy,lr,time\n";

// The shortest text that reads back as the same double; JSON has no word for what is no number.
static std::string number(double value, const char* none) {
  return std::isfinite(value) ? fmt::format("{}", value) : none;
}

std::string json_line(const Metric& m) {
  return fmt::format(R"({{"step":{},"epoch":{},"split":"{}","loss":{},"accuracy":{},"lr":{},"time":{:.3f}}})"
                     "\n",
                     m.step, m.epoch, m.split, number(m.loss, "null"), m.accuracy, m.lr, m.time);
}

std::string csv_line(const Metric& m) {
  return fmt::format("{},{},{},{},{},{},{:.3f}\n", m.step, m.epoch, m.split, number(m.loss, ""), m.accuracy, m.lr,
                     m.time);
}

MetricsLog::MetricsLog(const std::string& folder, int64_t every)
    : wall_start_(std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count()),
      every_(every),
      json_(folder + "/metrics.jsonl"),
      csv_(folder + "/metrics.csv"),
      events_(folder, wall_start_) {
  csv_.append(kCsvHeader);
}

void MetricsLog::step(const StepRecord& record) {
  const double loss = last_.loss + record.loss, accuracy = last_.accuracy + record.accuracy;
  last_ = record;
  lr_ = record.lr;
  last_.loss = loss;
  last_.accuracy = accuracy;
  if (++pending_ == every_) flush();
}

void MetricsLog::flush() {
  if (pending_ == 0) return;
  const auto n = static_cast<double>(pending_);
  write({last_.step, last_.epoch, "train", last_.loss / n, last_.accuracy / n, lr_, seconds_since(start_)});
  pending_ = 0;
  last_ = {};
}

void MetricsLog::validation(const ValidationRecord& r) {
  flush();
  write({r.step, r.epoch, "validation", r.validation.loss, r.validation.accuracy, r.lr, seconds_since(start_)});
}

void MetricsLog::test(const TrainResult& result, const Evaluation& test) {
  flush();
  write({result.steps, result.epochs, "test", test.loss, test.accuracy, lr_, seconds_since(start_)});
}

void MetricsLog::write(const Metric& m) {
  json_.append(json_line(m));
  csv_.append(csv_line(m));
  const double now = wall_start_ + m.time;
  events_.scalar("loss/" + m.split, m.step, m.loss, now);
  events_.scalar("accuracy/" + m.split, m.step, m.accuracy, now);
  if (m.split == "train") events_.scalar("lr", m.step, m.lr, now);
}

}  // namespace tandem
