using System.Collections.Concurrent;

namespace Ublkback.HostTests.Model;

/// <summary>A store of VDIs as the model knows it, and what the parts of a run share.</summary>
/// <param name="program">The program under test.</param>
/// <param name="store">The store, as commands are told.</param>
/// <param name="folder">For sockets.</param>
/// <param name="seed">What random choices depend on.</param>
internal sealed class ModelStore(string program, string store, string folder, int seed) : IDisposable
{
    public const int MaxVdis = 4;

    private readonly ConcurrentQueue<string> _events = new();
    private readonly ConcurrentDictionary<string, int> _refusals = new();
    private int _names;
    private int _sockets;

    public Random Random { get; } = new(seed);

    public ModelClock Clock { get; } = new();

    public StoreReader Reader { get; } = new(store);

    public Dictionary<string, ModelVdi> Vdis { get; } = [];

    /// <summary>Clones that were asked for, their contents, and whether they were created for certain.</summary>
    public Dictionary<string, (long[] Content, bool IsCertain)> Clones { get; } = [];

    /// <summary>How many rounds there were.</summary>
    public int Round { get; set; }

    /// <summary>How many processes were killed.</summary>
    public int Kills { get; set; }

    /// <summary>How many comparisons of a disk or snapshot there were.</summary>
    public int Comparisons { get; private set; }

    /// <summary>The latest events, and all refusals.</summary>
    public string Report => string.Join('\n', _events.TakeLast(80)) + "\nrefused:\n" + string.Join(
        '\n', _refusals.Select(pair => $"{pair.Value} x {pair.Key}").Order(StringComparer.Ordinal));

    /// <summary>A name that no VDI and no snapshot had before.</summary>
    public string NewName(string prefix) => $"{prefix}{Interlocked.Increment(ref _names)}";

    public ModelCommand Command(params string[] arguments) => new(program, store, arguments);

    public Task<ModelHolder> StartHolderAsync(string name, bool isPatient = true) => ModelHolder.StartAsync(
        program, TargetOf(name), NewSocket(), isPatient ? refusal => Refused($"export: {refusal}") : null);

    /// <summary>Starts a process that opens a VDI, and kills it while it does so.</summary>
    public Task StartAndKillAsync(string name, int delayMs)
    {
        Note($"killed while it opens: export {name}");
        return ModelHolder.StartAndKillAsync(program, TargetOf(name), NewSocket(), delayMs);
    }

    /// <summary>Notes what happened, for who looks for a fault.</summary>
    public void Note(string text)
    {
        _events.Enqueue($"{Round}: {text}");
        if (_events.Count > 1000) _events.TryDequeue(out _);
    }

    /// <summary>Notes a command that did not do what it was asked for.</summary>
    public void Refused(string text) =>
        _refusals.AddOrUpdate(Plain(text), 1, (_, count) => count + 1);

    /// <summary>Fails if a comparison found something wrong.</summary>
    public void Require(string what, string? wrong)
    {
        Comparisons++;
        if (wrong is not null) throw new ModelException($"round {Round}: {what}: {wrong}");
    }

    public void Dispose() => Reader.Dispose();

    private string TargetOf(string name) => $"vdi:{name}?store={store.Replace('?', '&')}";

    private string NewSocket() => Path.Combine(folder, $"nbd{Interlocked.Increment(ref _sockets)}");

    // Without numbers, so that equal refusals are counted together.
    private static string Plain(string text) =>
        string.Concat(text.Where(letter => !char.IsAsciiDigit(letter))).Trim();
}
