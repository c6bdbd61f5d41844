namespace Ublkback.Linux.Workers;

/// <summary>Something that has turns on a worker, one among many: it does a bounded amount of work in each.</summary>
public interface IWork
{
    /// <summary>Whether it waits for its turn. Kept by the worker.</summary>
    bool IsScheduled { get; set; }

    /// <summary>
    /// True if its turns take long: then its next turn comes after those of all others, and only one such turn between
    /// two looks at completions. Read when it is scheduled.
    /// </summary>
    bool IsHeavy => false;

    /// <summary>Takes one turn, on the worker.</summary>
    void Run();
}

/// <summary>Something that a worker looks at for a while before it sleeps.</summary>
public interface IPolledWork
{
    /// <summary>Whether there is something to do. A look at memory, no more.</summary>
    bool HasWork { get; }

    /// <summary>
    /// The looking is over. Without <paramref name="hasWork"/>, an event must bring the next turn from now on.
    /// </summary>
    void EndPolling(bool hasWork);
}
