#!/usr/bin/env perl
# mutants.pl RUNNER FILE: every quantity that FILE expects must be compared. For each case and quantity, the runner gets
# a copy of the case in which the quantity's last number is moved by three times its tolerance, and must report it.
# Prints a line for each copy that went unnoticed, and then exits 1.
use strict;
use warnings;
use File::Temp;
use JSON::PP;

my ($runner, $path) = @ARGV;
my $json = JSON::PP->new->canonical->allow_nonref;

# Numbers are read as strings "#...", so that all others are written as they were.
open my $stream, '<', $path or die "$path: $!";
my $text = join '', <$stream>;
$text =~ s/("(?:[^"\\]|\\.)*")|(-?\d[\d.eE+-]*)/defined $1 ? $1 : qq("#$2")/ge;
my $file = $json->decode($text);

# Adds to %$found the numbers in $owner's element $at and below, by quantity: the keys on the way, without "data".
sub collect {
  my ($owner, $at, $quantity, $found) = @_;
  my $value = ref $owner eq 'HASH' ? $owner->{$at} : $owner->[$at];
  if (ref $value eq 'HASH') {
    # mean_of_batches: of two definitions of recalibration, the one that Tandem does not take.
    for my $key (grep { !/^(shape|channels|eval_x|note|mean_of_batches)$/ } sort keys %$value) {
      collect($value, $key, $key eq 'data' ? $quantity : "$quantity.$key", $found);
    }
  } elsif (ref $value eq 'ARRAY') {
    collect($value, $_, $quantity, $found) for 0 .. $#$value;
  } elsif (defined $value) {
    push @{$found->{$quantity}}, ref $owner eq 'HASH' ? \$owner->{$at} : \$owner->[$at];
  }
}

# References to the numbers that a case expects, by quantity.
sub expectations {
  my ($case) = @_;
  my %found;
  collect($case, $_, $_, \%found) for 'expect', 'x_check';
  for my $step (@{$case->{steps} // []}) {
    collect($step, $_, $_, \%found) for 'expect', 'grads';
    collect($_, 'loss', 'loss', \%found) for @{$step->{micro} // []};
  }
  return \%found;
}

# How far a quantity may be off, or undef if it is not compared.
sub slack {
  my ($case, $quantity, $want) = @_;
  my ($last) = $quantity =~ /(\w+)$/;
  my $tol = $case->{tol} // {};
  my @names = ($last eq 'y_at' ? 'y' : $last, 'all');
  @names = ('p') if $case->{op} eq 'optimizer';
  unshift @names, 'grads' if $quantity =~ /^grads/;
  unshift @names, $last =~ /^running/ ? 'running' : 'params'
    if $quantity =~ /^expect\.final/ && $last ne 'num_batches_tracked';
  return 1e-8 * abs $want if $quantity =~ /^x_check/;
  for my $name (@names) {
    next unless exists $tol->{$name};
    return undef unless $tol->{$name};
    my ($rtol, $atol) = map { s/^#//r } @{$tol->{$name}};
    return $atol + $rtol * abs $want;
  }
  return 0;
}

sub moved {
  my ($want, $slack) = @_;
  return '#7.25' unless $want =~ s/^#//;  # nan, inf
  my $step = $slack > 0 ? 3 * $slack : $want != 0 ? 1e-6 * abs $want : 1;
  return '#' . sprintf('%.17g', $want + ($want > 0 ? -$step : $step));
}

my (@mutants, %expected);
for my $case (@{$file->{cases}}) {
  my $mutate = sub {
    my ($quantity, $change) = @_;
    my $copy = $json->decode($json->encode($case));
    return unless $change->($copy);
    $copy->{id} = "$case->{id} with another $quantity";
    $copy->{tags} = [grep { $_ ne 'stretch' } @{$copy->{tags}}];
    push @mutants, $copy;
    $expected{$copy->{id}} = $quantity =~ /(\w+)$/ ? $1 : $quantity;
  };
  if ($case->{op} eq 'batch_norm_contract') {
    # What is loaded depends on what is expected, so there is nothing to move.
    $mutate->('expect', sub { $_[0]{expect} = $_[0]{expect} eq 'ok' ? 'error' : 'ok' }) unless $case->{mode} eq 'load';
    $mutate->('must_mention', sub { $_[0]{must_mention} = ['nothing like it'] }) if $case->{expect} eq 'error';
    next;
  }
  for my $quantity (sort keys %{expectations($case)}) {
    $mutate->($quantity, sub {
      my @numbers = @{expectations($_[0])->{$quantity}};
      @numbers = $numbers[-1] unless $case->{op} eq 'recalibrate';  # there, one of two definitions is enough
      my $changed = 0;
      for my $want (@numbers) {
        my $slack = slack($_[0], $quantity, $$want =~ /^#(.*)/ ? $1 : 1);
        next unless defined $slack;
        $$want = moved($$want, $slack);
        $changed = 1;
      }
      return $changed;
    });
  }
}

$file->{cases} = \@mutants;
my $out = File::Temp->new(SUFFIX => '.json');
print $out $json->encode($file) =~ s/"#([^"]*)"/$1/gr;
close $out;

my ($failed, $skipped, @unnoticed) = (0, 0);
for my $line (qx("$runner" "$out" --json)) {
  my $result = $json->decode($line);
  my $id = $result->{id} // next;
  my $name = delete $expected{$id};
  $name = 'y' if $name eq 'y_at';
  my @messages = @{$result->{messages}};
  if ($result->{status} eq 'skipped') { ++$skipped }
  elsif (grep { /\b\Q$name\E\b|must mention|expected (an|no) error/ } @messages) { ++$failed }
  else { push @unnoticed, "$id: $result->{status} @messages" }
}
push @unnoticed, map { "$_: no result" } sort keys %expected;
print "$path: $failed mutants failed, $skipped skipped, ", scalar @unnoticed, " unnoticed\n";
print "$_\n" for @unnoticed;
exit($failed + $skipped == 0 || @unnoticed > 0);
