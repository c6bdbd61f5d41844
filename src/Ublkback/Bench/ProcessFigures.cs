using System.Globalization;
using Mono.Unix.Native;

namespace Ublkback.Bench;

/// <summary>What proc(5) says of a process.</summary>
internal static class ProcessFigures
{
    private static readonly double TicksPerSecond = Syscall.sysconf(SysconfName._SC_CLK_TCK);

    /// <summary>Processor time used so far, of all its threads, also those that have ended.</summary>
    public static double CpuSeconds(int process)
    {
        string stat = File.ReadAllText($"/proc/{process}/stat");
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return (Number(fields[11]) + Number(fields[12])) / TicksPerSecond; // utime and stime
    }

    /// <summary>Resident memory in bytes, with the program's files, without memory shared with guests.</summary>
    public static long ResidentBytes(int process) => (Status(process, "RssAnon:") + Status(process, "RssFile:")) << 10;

    /// <summary>Number of threads.</summary>
    public static int Threads(int process) => (int)Status(process, "Threads:");

    private static long Status(int process, string name) => Number(File.ReadLines($"/proc/{process}/status")
        .First(line => line.StartsWith(name, StringComparison.Ordinal))[name.Length..].Replace(
            "kB", "", StringComparison.Ordinal).Trim());

    private static long Number(string text) => long.Parse(text, CultureInfo.InvariantCulture);
}
