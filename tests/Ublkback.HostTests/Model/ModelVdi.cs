namespace Ublkback.HostTests.Model;

/// <summary>A VDI as the model knows it.</summary>
internal sealed class ModelVdi(string name, ModelDisk disk)
{
    private readonly List<Task> _writers = [];
    private CancellationTokenSource _stopping = new();

    public string Name => name;

    public ModelDisk Disk => disk;

    /// <summary>The process that has it open; null if none has.</summary>
    public ModelHolder? Holder { get; set; }

    /// <summary>The contents of its snapshots.</summary>
    public Dictionary<string, long[]> Snapshots { get; } = [];

    /// <summary>Snapshots that were asked for, and that nobody has read yet.</summary>
    public Dictionary<string, ModelAsked> Asked { get; } = [];

    /// <summary>Snapshots that may be there or not, since their deletion did not end.</summary>
    public HashSet<string> Deleting { get; } = [];

    /// <summary>What a rollback that kept a snapshot may have kept.</summary>
    public List<long[]> Kept { get; } = [];

    /// <summary>What is repeated until it is done, since a process was killed meanwhile; null if nothing is.</summary>
    public ModelCommand? Unfinished { get; set; }

    /// <summary>True if its deletion was begun.</summary>
    public bool IsDeleted { get; set; }

    /// <summary>The size that it gets, in sectors.</summary>
    public int NextSectors { get; set; }

    /// <summary>True if a command of this round works on it.</summary>
    public bool IsTaken { get; set; }

    /// <summary>True if nothing is written in this round.</summary>
    public bool IsQuiet { get; set; }

    /// <summary>Starts requests that change the disk.</summary>
    public void StartWriters(int count, ModelClock clock, Func<int> seed)
    {
        _stopping = new CancellationTokenSource();
        for (int i = 0; i < count; i++)
        {
            ModelWriter writer = new(disk, Holder!.Client, clock, new Random(seed()));
            CancellationToken stopping = _stopping.Token;
            _writers.Add(Task.Run(() => writer.RunAsync(stopping)));
        }
    }

    /// <summary>Stops them when their requests are answered or lost.</summary>
    public async Task StopWritersAsync(TimeSpan limit)
    {
        Task[] writers = Detach();
        await Task.WhenAll(writers).WaitAsync(limit);
    }

    /// <summary>Lets no further request begin; returns the tasks of those that wait for answers.</summary>
    public Task[] Detach()
    {
        _stopping.Cancel();
        Task[] writers = [.. _writers];
        _writers.Clear();
        return writers;
    }
}

/// <summary>A snapshot that was asked for.</summary>
/// <param name="Begin">When the command began.</param>
/// <param name="End">When it had done it; the end of time if it did not say so.</param>
/// <param name="Round">In which round.</param>
internal sealed record ModelAsked(long Begin, long End, int Round)
{
    public bool IsCertain => End != long.MaxValue;
}
