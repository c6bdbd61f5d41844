using System.Text.Json.Serialization;
using Ublkback.Backend.Xenbus;

namespace Ublkback.Backend.Journals;

/// <summary>What a journal speaks of: rings of one guest and the image that they are served from.</summary>
/// <param name="Frontend">The frontend's directory.</param>
/// <param name="Machine">The virtual machine's own path; null when unknown.</param>
/// <param name="Image">The image's identity.</param>
/// <param name="Protocol">The rings' layout.</param>
/// <param name="Queues">The queues, as the frontend described them.</param>
public sealed record JournalIdentity(
    string Frontend, string? Machine, string Image, string Protocol, IReadOnlyList<FrontendQueue> Queues)
{
    /// <summary>
    /// Why a ring with the given identity must not be served on with a journal of this one; null when it may.
    /// </summary>
    public string? DifferenceFrom(JournalIdentity now)
    {
        if (Frontend != now.Frontend || Machine != now.Machine) return "its guest is another one now";
        if (Protocol != now.Protocol || !Queues.SequenceEqual(now.Queues)) return "the guest's rings are others now";
        return Image == now.Image
            ? null
            : $"its image is another one now ({now.Image}, before {Image}): put the one before in its place";
    }
}

[JsonSerializable(typeof(JournalIdentity))]
internal sealed partial class JournalJson : JsonSerializerContext;
