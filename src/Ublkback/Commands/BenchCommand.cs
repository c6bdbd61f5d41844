using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Ublkback.Bench;
using Ublkback.Hosting;

namespace Ublkback.Commands;

/// <summary><c>ublkback bench</c></summary>
internal static class BenchCommand
{
    private const int MaxSeconds = 86400;

    public static Command Make()
    {
        Option<string> image = new("--image")
        {
            Description =
            "The image to serve, a file or a target; it is overwritten by writes.",
            Required = true
        };
        Option<string> rw = new("--rw") { Description = "What to do.", DefaultValueFactory = _ => "randread" };
        rw.AcceptOnlyFromAmong("randread", "randwrite", "read", "write");
        Option<string> blockSize = new(
            "--bs")
        { Description = "Size of a request, such as 4k or 1m, up to 1m.", DefaultValueFactory = _ => "4k" };
        Option<int> depth =
            new("--qd") { Description = "Requests in flight for each disk.", DefaultValueFactory = _ => 32 };
        Option<int> queues = new("--queues") { Description = "Queues of each disk.", DefaultValueFactory = _ => 1 };
        Option<int> vbds = new(
            "--vbds")
        { Description = "Number of disks; each gets a part of the image.", DefaultValueFactory = _ => 1 };
        Option<double> seconds =
            new("--seconds") { Description = "How long to measure.", DefaultValueFactory = _ => 5 };
        Option<string> hooks = new("--hooks")
        {
            Description = "Hooks over the image, such as throttle(iops=500).",
            DefaultValueFactory = _ => ""
        };
        Option<bool> copies =
            new("--no-persistent") { Description = "Copy by grants, as for frontends that keep none." };
        Option<bool> json = CommonOptions.Json();
        Command command = new("bench", """
            Measure, on an emulated host: the daemon is one process, the frontend another.

            Example:
              truncate --size=1G /tmp/a.img && ublkback bench --image /tmp/a.img --rw randread --qd 32
            """)
        {
            image, rw, blockSize, depth, queues, vbds, seconds, hooks, copies, json,
        };
        command.SetAction((arguments, _) => RunAsync(
            new BenchOptions(
                arguments.GetRequiredValue(image), arguments.GetValue(rw)!, BytesOf(arguments.GetValue(blockSize)!),
                arguments.GetValue(depth), arguments.GetValue(queues), arguments.GetValue(vbds),
                TimeOf(arguments.GetValue(seconds)),
                arguments.GetValue(hooks) is { Length: > 0 } over ? over + "+" : "", !arguments.GetValue(copies)),
            arguments.GetValue(json)));
        return command;
    }

    private static TimeSpan TimeOf(double seconds) =>
        seconds is > 0 and <= MaxSeconds
            ? TimeSpan.FromSeconds(seconds)
            : throw new CommandException(
                $"--seconds {seconds.ToString(CultureInfo.InvariantCulture)} is not a time to measure",
                $"give more than 0, and {MaxSeconds} at most");

    private static async Task<int> RunAsync(BenchOptions options, bool asJson)
    {
        BenchResult found = await new Benchmark(options).RunAsync().ConfigureAwait(false);
        Console.WriteLine(asJson
            ? JsonSerializer.Serialize(found, BenchJson.Default.BenchResult)
            : string.Create(
                CultureInfo.InvariantCulture,
                $"""
                {found.Iops:N0} requests/s, {found.Iops * options.BlockSize / (1 << 20):N0} MiB/s
                latency: mean {found.MeanUs:F1} µs, p50 {found.P50Us:F1}, p99 {found.P99Us:F1}, p99.9 {found.P999Us:F1}
                processor time of all processes: {found.CpuUsPerRequest:F2} µs a request
                allocated by the daemon: {found.AllocatedBytesPerRequest:F3} bytes a request
                garbage collections in the daemon: {found.Collections}
                """));
        return 0;
    }

    private static int BytesOf(string text)
    {
        int unit = char.ToLowerInvariant(text[^1]) switch { 'k' => 1 << 10, 'm' => 1 << 20, _ => 1 };
        string number = unit == 1 ? text : text[..^1];
        if (int.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out int value)
            && (long)value * unit is >= 4096 and <= 1 << 20 && value * unit % 4096 == 0)
        {
            return value * unit;
        }

        throw new CommandException($"--bs {text} is no size from 4k to 1m in steps of 4k");
    }
}
