using System.Diagnostics;
using System.Globalization;
using NUnit.Framework;
using Ublkback.HostTests.Fixtures;
using Ublkback.HostTests.Model;

namespace Ublkback.HostTests.Formats;

/// <summary>
/// VDIs, snapshots and clones of a store while processes are killed, or stopped and replaced: all that a model allows,
/// and nothing else. UBLKBACK_MODEL_SEED repeats the choices of a run; UBLKBACK_MODEL_KILLS and
/// UBLKBACK_MODEL_TAKEOVERS say how long it is.
/// </summary>
[TestFixture(true)]
[TestFixture(false)]
public sealed class VdiModelTests(bool isFile) : VdiFixture
{
    private const int TakeoversAtOnce = 4;

    private static readonly int Seed = Read("UBLKBACK_MODEL_SEED", Environment.TickCount & 0xffff);
    private static readonly int Kills = Read("UBLKBACK_MODEL_KILLS", 10);
    private static readonly int Takeovers = Read("UBLKBACK_MODEL_TAKEOVERS", TakeoversAtOnce);

    [SetUp]
    public async Task MakeStore() =>
        StoreOption = isFile
            ? $"file:{Path.Combine(Scratch, "store")}"
            : $"rados:{await OneNodeCeph.MakePoolAsync()}?conf={OneNodeCeph.Configuration}";

    [Test]
    public async Task Whatever_is_killed_or_taken_over_no_sector_is_wrong()
    {
        TestContext.Out.WriteLine($"UBLKBACK_MODEL_SEED={Seed}");
        long began = Stopwatch.GetTimestamp();
        using ModelStore store = new(Program, StoreOption, Scratch, Seed);
        ModelRun run = new(store);
        try
        {
            await run.StartAsync();
            while (store.Kills < Kills || run.Takeovers < Takeovers)
            {
                // As many of the one as of the other are left, in proportion.
                if ((long)store.Kills * Takeovers > (long)run.Takeovers * Kills || store.Kills >= Kills)
                    await run.TakeOverAsync(TakeoversAtOnce, isPossible: !isFile);
                else await run.KillAsync();
            }

            await run.EndAsync();
        }
        finally
        {
            TestContext.Out.WriteLine(
                $"{store.Round} rounds, {store.Kills} kills, {run.Takeovers} takeovers, "
                + $"{store.Comparisons} comparisons of a disk or a snapshot, "
                + $"{Stopwatch.GetElapsedTime(began).TotalSeconds:0} s");
            TestContext.Out.WriteLine(store.Report);
            await run.StopAsync();
        }
    }

    private static int Read(string variable, int usual) =>
        Environment.GetEnvironmentVariable(variable) is { Length: > 0 } text
            ? int.Parse(text, CultureInfo.InvariantCulture)
            : usual;
}
