namespace Ublkback.Images.Qcow2;

/// <summary>What a check of an image has found.</summary>
internal sealed record Qcow2CheckReport
{
    /// <summary>How many messages of a kind are kept.</summary>
    public const int MaxMessages = 20;

    /// <summary>Clusters that are counted more often than they are used: they cost space and nothing else.</summary>
    public long Leaks { get; set; }

    /// <summary>
    /// Clusters that are counted less often than they are used, or that have the wrong mark of being used once.
    /// </summary>
    public long Errors { get; set; }

    /// <summary>Clusters of the disk that are in the image.</summary>
    public long Allocated { get; set; }

    /// <summary>Those of them that are compressed.</summary>
    public long Compressed { get; set; }

    /// <summary>Clusters that the disk has.</summary>
    public long Total { get; set; }

    /// <summary>The end of the last cluster that is used, in bytes.</summary>
    public long EndOffset { get; set; }

    /// <summary>The first of what was found that can be repaired.</summary>
    public List<string> Repairable { get; } = [];

    /// <summary>The first of what was found that cannot be repaired without losing data.</summary>
    public List<string> Unrepairable { get; } = [];

    /// <summary>Adds a message to one of the lists.</summary>
    public static void Add(List<string> messages, string message)
    {
        if (messages.Count < MaxMessages) messages.Add(message);
    }
}
